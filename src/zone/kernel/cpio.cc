#include "zone/kernel/cpio.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "base/assert.h"

namespace bulkhead::zone {
namespace {
void pad_to_four(std::string& out) { out.resize((out.size() + 3) & ~std::size_t{3}, '\0'); }
}  // namespace

void CpioWriter::add(std::string_view path, u32 mode, std::span<const std::byte> content, u32 major, u32 minor) {
  BH_ASSERT(!path.empty() && path.front() != '/' && content.size() <= 0xFFFF'FFFF);
  const u32 inode = path == "TRAILER!!!" ? 0 : next_inode_++;
  // magic ino mode uid gid nlink mtime filesize major minor rmajor rminor namesize check
  out_ += fmt::format("070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}", inode,
                      mode, 0, 0, S_ISDIR(mode) ? 2 : 1, 0, content.size(), 0, 0, major, minor, path.size() + 1, 0);
  out_ += path;
  out_ += '\0';
  pad_to_four(out_);
  out_.append(reinterpret_cast<const char*>(content.data()), content.size());
  pad_to_four(out_);
}

void CpioWriter::add_parents(std::string_view path) {
  for (std::size_t slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/', slash + 1))
    add_folder(path.substr(0, slash));
}

void CpioWriter::add_folder(std::string_view path, u32 permissions) {
  if (folders_.contains(path)) return;
  add_parents(path);
  folders_.emplace(path);
  add(path, S_IFDIR | permissions, {}, 0, 0);
}

void CpioWriter::add_file(std::string_view path, u32 permissions, std::span<const std::byte> content) {
  add_parents(path);
  add(path, S_IFREG | permissions, content, 0, 0);
}

void CpioWriter::add_character_device(std::string_view path, u32 permissions, u32 major, u32 minor) {
  add_parents(path);
  add(path, S_IFCHR | permissions, {}, major, minor);
}

std::string CpioWriter::finish() {
  add("TRAILER!!!", 0, {}, 0, 0);
  return std::move(out_);
}

}  // namespace bulkhead::zone
