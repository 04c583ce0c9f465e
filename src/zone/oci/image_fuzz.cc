// Whatever a document or a layer holds, we end with a value or an error, and touch nothing outside of the folder.
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "zone/oci/layer.h"
#include "zone/oci/user.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bulkhead::zone;
  namespace fs = std::filesystem;
  if (size == 0) return 0;
  const std::string_view text{reinterpret_cast<const char*>(data) + 1, size - 1};
  switch (data[0] % 6) {
    case 0:
      if (const auto index = parse_index(text)) (void)choose(*index, "name");
      return 0;
    case 1:
      (void)parse_manifest(text);
      return 0;
    case 2:
      (void)parse_config(text);
      return 0;
    case 3:
      if (const auto entries = parse_docker_manifest(text)) (void)choose(*entries, "name");
      return 0;
    case 4:
      (void)resolve_user(text.substr(0, text.find('\0')), text, text);
      return 0;
    default:
      break;
  }
  static const fs::path folder = [] {
    std::string name = fs::temp_directory_path() / "bulkhead-image-fuzz-XXXXXX";
    return fs::path{::mkdtemp(name.data())};
  }();
  fs::remove_all(folder / "root");
  fs::create_directory(folder / "root");
  std::ofstream{folder / "layer", std::ios::binary} << text;
  auto tree = Tree::open(folder / "root");
  UnpackLimits limits;
  limits.bytes = 1 << 20;
  limits.entries = 100;
  UnpackCounts counts;
  Progress progress{Progress::Show::kNever};
  Workshop workshop{progress, nullptr};
  (void)apply_layer(folder / "layer", std::nullopt, *tree, limits, counts, workshop);
  for (const auto& entry : fs::directory_iterator{folder})
    if (entry.path().filename() != "root" && entry.path().filename() != "layer") __builtin_trap();
  return 0;
}
