#include "zone/image/root_format.h"

#include <fcntl.h>

#include <array>
#include <cstring>

#include "base/fd.h"

namespace bulkhead::zone {
namespace {

constexpr off_t kSuperblock = 1024;                 // both [linux erofs_fs.h] and [ext4 "The Super Block"]
constexpr u32 kErofsMagic = 0xE0F5'E1E2;            // at +0
constexpr u16 kExtMagic = 0xEF53;                   // at +0x38
constexpr u32 kExt4Features = 0x40 | 0x80 | 0x200;  // s_feature_incompat at +0x60: extents, 64bit, flex_bg

template <class T>
T field(const std::array<std::byte, 512>& block, std::size_t offset) {
  T value;
  std::memcpy(&value, block.data() + offset, sizeof value);
  return value;
}

}  // namespace

std::string_view format_name(RootFormat format) { return format == RootFormat::kErofs ? "erofs" : "ext4"; }

Result<RootFormat> detect_root_format(const std::string& path) {
  const UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd) return fail_errno("opening the root disk image {}", path);
  std::array<std::byte, 512> block{};
  const ssize_t size = ::pread(fd.get(), block.data(), block.size(), kSuperblock);
  if (size < 0) return fail_errno("reading the root disk image {}", path);
  if (field<u32>(block, 0) == kErofsMagic) return RootFormat::kErofs;
  // The ext4 driver mounts ext2 and ext3 too, but only under those names.
  if (field<u16>(block, 0x38) == kExtMagic && (field<u32>(block, 0x60) & kExt4Features) != 0) return RootFormat::kExt4;
  return fail(
      "{} holds neither an erofs nor an ext4 file system (a disk with partitions cannot be a zone's root): "
      "name a folder or such an image",
      path);
}

}  // namespace bulkhead::zone
