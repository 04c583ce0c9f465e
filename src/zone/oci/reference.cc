#include "zone/oci/reference.h"

#include <filesystem>

#include "base/ints.h"
#include "zone/oci/archive_reader.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
using Kind = ImageReference::Kind;

// PATH, or PATH:NAME. A path with a colon in it that is there is a path.
void split_name(const std::string& rest, ImageReference& out) {
  std::error_code error;
  out.path = rest;
  const std::size_t folder = rest.rfind('/');
  const std::size_t colon = rest.find(':', folder == std::string::npos ? 0 : folder);
  // The name may have slashes itself: the path ends at the first colon behind which nothing is a file.
  for (std::size_t at = rest.find(':'); at != std::string::npos && !fs::exists(out.path, error);
       at = rest.find(':', at + 1)) {
    if (!fs::exists(rest.substr(0, at), error)) continue;
    out.path = rest.substr(0, at);
    out.name = rest.substr(at + 1);
    return;
  }
  if (fs::exists(out.path, error) || colon == std::string::npos) return;
  out.path = rest.substr(0, colon);
  out.name = rest.substr(colon + 1);
}

}  // namespace

std::optional<ImageReference> parse_reference(const std::string& text) {
  ImageReference out;
  out.text = text;
  const auto rest = [&](std::string_view prefix) { return text.substr(prefix.size()); };
  if (text.starts_with("oci:")) {
    split_name(rest("oci:"), out);
    return out;
  }
  for (const std::string_view prefix : {"oci-archive:", "docker-archive:"}) {
    if (!text.starts_with(prefix)) continue;
    out.kind = Kind::kArchive;
    split_name(rest(prefix), out);
    return out;
  }
  if (text.starts_with("containerd:")) {
    out.kind = Kind::kContainerd;
    out.name = rest("containerd:");
    return out;
  }
  std::error_code error;
  out.path = text;
  if (fs::is_directory(text, error) && fs::is_regular_file(fs::path{text} / "oci-layout", error)) return out;
  out.kind = Kind::kArchive;
  if (fs::is_regular_file(text, error) && is_image_archive(text)) return out;
  return std::nullopt;
}

}  // namespace bulkhead::zone
