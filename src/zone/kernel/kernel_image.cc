#include "zone/kernel/kernel_image.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kSetupBytes = 64_KiB;  // a bzImage's real-mode part
constexpr std::size_t kMaxRelease = 128;

std::string first_word(std::string_view text) {
  text = text.substr(0, std::min(text.find_first_of(std::string_view{" \n\0", 3}), kMaxRelease));
  const bool sane = std::ranges::all_of(text, [](unsigned char c) { return c > ' ' && c < 127 && c != '/'; });
  return sane && text != "." && text != ".." ? std::string{text} : std::string{};
}

std::string find_modules(const fs::path& kernel, const std::string& release) {
  if (release.empty()) return {};
  std::error_code error;
  const fs::path above = fs::absolute(kernel, error).parent_path().parent_path();
  for (const fs::path& root : {above / "lib", above / "usr/lib", kernel.parent_path() / "lib", fs::path{"/lib"}})
    if (fs::is_directory(root / "modules" / release / "kernel", error)) return (root / "modules" / release).string();
  return {};
}

}  // namespace

std::string kernel_release(std::string_view file) {
  if (file.starts_with("\177ELF")) {
    constexpr std::string_view kBanner = "Linux version ";
    for (std::size_t at = file.find(kBanner); at != std::string_view::npos; at = file.find(kBanner, at + 1)) {
      const std::string release = first_word(file.substr(at + kBanner.size()));
      if (!release.empty() && release[0] >= '0' && release[0] <= '9') return release;
    }
    return {};
  }
  if (file.size() < 0x210 || file.substr(0x202, 4) != "HdrS") return {};
  u16 offset;
  std::memcpy(&offset, file.data() + 0x20E, sizeof offset);
  if (offset == 0 || offset + 0x200u >= file.size()) return {};
  return first_word(file.substr(offset + 0x200u));
}

Result<KernelImage> inspect_kernel(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return fail("the kernel {} is a folder: name a bzImage or vmlinux file", path);
  std::ifstream in{path, std::ios::binary};
  std::string start(kSetupBytes, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (in.gcount() == 0) {
    if (fs::exists(path, error)) return fail("the kernel {} cannot be read or is empty", path);
    return fail("there is no kernel {}: name a file, or a kernel that `bulkhead kernel list` shows", path);
  }
  start.resize(static_cast<std::size_t>(in.gcount()));
  if (start.starts_with("\177ELF")) start.append(std::istreambuf_iterator<char>{in}, {});
  KernelImage image{path, kernel_release(start), {}};
  image.modules_folder = find_modules(path, image.release);
  return image;
}

}  // namespace bulkhead::zone
