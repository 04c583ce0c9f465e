// Opening and creating files: what can be wrong with a path, and what direct I/O asks of requests there.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/bits.h"
#include "block/file/file_node.h"

namespace bulkhead::block {
namespace {

struct Found {
  u64 size = 0;
  bool is_device = false;
};

Result<Found> examine(int fd, const std::string& path) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return fail_errno("cannot examine disk '{}'", path);
  if (S_ISREG(info.st_mode)) return Found{static_cast<u64>(info.st_size), false};
  if (!S_ISBLK(info.st_mode)) return fail("disk '{}' is neither a file nor a block device; give a disk image", path);
  u64 size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return fail_errno("cannot learn the size of block device '{}'", path);
  return Found{size, true};
}

Result<void> judge_size(u64 size, const std::string& path) {
  if (size == 0) return fail("disk '{}' is empty; a disk needs at least one sector of {} bytes", path, kSectorSize);
  if (!is_aligned(size, kSectorSize))
    return fail("disk '{}' has {} bytes, not a multiple of {}; extend it, e.g. truncate -s {} '{}'", path, size,
                kSectorSize, align_up(size, kSectorSize), path);
  return {};
}

NodeLimits limits_of(int fd, bool direct, bool is_device) {
  NodeLimits limits;
  if (!direct) return limits;
  limits.request_alignment = limits.memory_alignment = 4096;  // right everywhere, if not always needed
#ifdef STATX_DIOALIGN
  struct statx info{};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN) != 0 &&
      info.stx_dio_offset_align != 0) {
    limits.request_alignment = std::max<u32>(info.stx_dio_offset_align, 512);
    limits.memory_alignment = std::max<u32>(info.stx_dio_mem_align, 512);
    return limits;
  }
#endif
  int sector = 0;
  if (is_device && ::ioctl(fd, BLKSSZGET, &sector) == 0 && sector >= 512 && sector <= 4096)
    limits.request_alignment = limits.memory_alignment = static_cast<u32>(sector);
  return limits;
}

}  // namespace

FileNode::FileNode(Executor& executor, FileOptions options, UniqueFd fd, u64 size, bool is_device)
    : Node{executor, options.path, options.access},
      options_{std::move(options)},
      fd_{std::move(fd)},
      is_device_{is_device},
      limits_{limits_of(fd_.get(), options_.direct, is_device)} {
  set_size(size);
}

Result<std::shared_ptr<FileNode>> FileNode::open(Executor& executor, FileOptions options) {
  const std::string& path = options.path;
  const bool writes = options.access == DiskAccess::kReadWrite;
  // O_NONBLOCK so that naming a FIFO by mistake is an error and not a wait; it means nothing for files and disks.
  const int mode = (writes ? O_RDWR : O_RDONLY) | (options.direct ? O_DIRECT : 0) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  UniqueFd fd{::open(path.c_str(), mode)};
  if (!fd && errno == EINVAL && options.direct)
    return fail("the file system of disk '{}' has no direct I/O; use cache=writeback", path);
  if (!fd) return fail_errno("cannot open disk '{}'{}", path, writes ? " for writing" : "");
  BH_ASSIGN(const Found found, examine(fd.get(), path));
  if (!options.growable) BH_TRY(judge_size(found.size, path));
  BH_TRY(lock_file(fd.get(), path, options.access, options.lock));
  std::shared_ptr<FileNode> node{new FileNode{executor, options, std::move(fd), found.size, found.is_device}};
  if (!options.growable && writes && !is_aligned(found.size, node->limits_.request_alignment))
    return fail("disk '{}' has {} bytes, and direct I/O wants a multiple of {} there; use cache=writeback", path,
                found.size, node->limits_.request_alignment);
  return node;
}

Task<Result<void>> FileNode::reopen(DiskAccess access) {
  const DiskAccess before = read_only() ? DiskAccess::kReadOnly : DiskAccess::kReadWrite;
  if (access == before) co_return Result<void>{};
  const bool writes = access == DiskAccess::kReadWrite;
  const int mode = (writes ? O_RDWR : O_RDONLY) | (options_.direct ? O_DIRECT : 0) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  // By the open file and not by its name, which may be another file's by now.
  UniqueFd fd{::open(fmt::format("/proc/self/fd/{}", fd_.get()).c_str(), mode)};
  if (!fd) co_return fail_errno("cannot open disk '{}'{}", name(), writes ? " for writing" : " for reading");
  if (options_.lock == FileLock::kAsUsed) BH_CO_TRY(lock_instead(fd.get(), fd_.get(), name(), access, before));
  fd_ = std::move(fd);
  set_access(access);
  co_return Result<void>{};
}

Result<void> FileNode::create(const std::string& path, u64 size) {
  UniqueFd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644)};
  if (!fd) return fail_errno("cannot create disk '{}'", path);
  BH_ASSIGN(const Found found, examine(fd.get(), path));
  BH_TRY(lock_file(fd.get(), path, DiskAccess::kReadWrite, FileLock::kAsUsed));
  if (found.is_device) {
    if (found.size < size) return fail("block device '{}' has {} bytes, {} are needed", path, found.size, size);
    return {};
  }
  if (::ftruncate(fd.get(), 0) != 0 || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return fail_errno("cannot give disk '{}' its {} bytes", path, size);
  unlock_file(fd.get());
  return {};
}

}  // namespace bulkhead::block
