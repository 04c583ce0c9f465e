// Writing cpio archives in the "newc" format, which the kernel unpacks as its initramfs
// [linux "initramfs buffer format"].
#pragma once
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::zone {

// All entries belong to uid and gid 0 and have time 0, so that equal contents make equal archives. Paths are relative,
// without "." or ".."; folders above an entry are added by themselves.
class CpioWriter {
 public:
  void add_file(std::string_view path, u32 permissions, std::span<const std::byte> content);
  void add_folder(std::string_view path, u32 permissions = 0755);
  void add_character_device(std::string_view path, u32 permissions, u32 major, u32 minor);
  std::string finish();  // the archive; nothing may be added afterwards

 private:
  void add(std::string_view path, u32 mode, std::span<const std::byte> content, u32 major, u32 minor);
  void add_parents(std::string_view path);
  std::string out_;
  std::set<std::string, std::less<>> folders_;
  u32 next_inode_ = 1;
};

}  // namespace bulkhead::zone
