#include "block/raw/raw_disk.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>

#include "base/bits.h"

namespace bulkhead::block {
namespace {

Result<u64> size_of(int fd, const std::string& path) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return fail_errno("cannot examine disk '{}'", path);
  if (S_ISREG(info.st_mode)) return static_cast<u64>(info.st_size);
  if (!S_ISBLK(info.st_mode))
    return fail("disk '{}' is neither a file nor a block device; give a raw disk image", path);
  u64 size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return fail_errno("cannot learn the size of block device '{}'", path);
  return size;
}

Result<void> lock_whole(int fd, const std::string& path, DiskAccess access) {
  struct flock lock{};
  lock.l_type = access == DiskAccess::kReadWrite ? F_WRLCK : F_RDLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  if (errno == EAGAIN || errno == EACCES)
    return fail("disk '{}' is in use by another zone or program; stop it, or work on a copy", path);
  // A file system without locks: readers may go on, a writer could destroy somebody's data.
  if (access == DiskAccess::kReadOnly) return {};
  return fail_errno("cannot lock disk '{}' for writing; move it to a file system that has locks", path);
}

// One preadv/pwritev at most: fills `vector` from buffers[first...], skipping `skip` bytes of the first of them.
std::size_t fill(std::span<iovec> vector, std::span<const IoBuffer> buffers, std::size_t first, u64 skip) {
  std::size_t count = 0;
  for (; first < buffers.size() && count < vector.size(); ++first) {
    const IoBuffer& buffer = buffers[first];
    if (buffer.length > skip) vector[count++] = {buffer.data + skip, static_cast<std::size_t>(buffer.length - skip)};
    skip = 0;
  }
  return count;
}

}  // namespace

Result<std::unique_ptr<RawDisk>> RawDisk::open(const std::string& path, DiskAccess access, std::string serial) {
  const int mode = access == DiskAccess::kReadOnly ? O_RDONLY : O_RDWR;
  // O_NONBLOCK so that naming a FIFO by mistake is an error and not a wait; it means nothing for files and disks.
  UniqueFd fd{::open(path.c_str(), mode | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
  if (!fd) return fail_errno("cannot open disk '{}'{}", path, access == DiskAccess::kReadOnly ? "" : " for writing");
  BH_ASSIGN(const u64 size, size_of(fd.get(), path));
  if (size == 0) return fail("disk '{}' is empty; a disk needs at least one sector of {} bytes", path, kSectorSize);
  if (!is_aligned(size, kSectorSize))
    return fail("disk '{}' has {} bytes, not a multiple of {}; extend it, e.g. truncate -s {} '{}'", path, size,
                kSectorSize, align_up(size, kSectorSize), path);
  BH_TRY(lock_whole(fd.get(), path, access));
  return std::unique_ptr<RawDisk>(new RawDisk{std::move(fd), size, access, std::move(serial)});
}

IoStatus RawDisk::transfer(Direction direction, u64 offset, std::span<const IoBuffer> buffers) {
  u64 total = 0;
  for (const IoBuffer& buffer : buffers) {
    if (buffer.length > size_ - total) return IoStatus::kOutOfRange;
    total += buffer.length;
  }
  if (!range_within(offset, total, size_)) return IoStatus::kOutOfRange;
  std::array<iovec, 256> vector;
  std::size_t first = 0;
  u64 skip = 0;
  for (u64 done = 0; done < total;) {
    const std::size_t count = fill(vector, buffers, first, skip);
    const auto at = static_cast<off_t>(offset + done);
    const ssize_t moved = direction == Direction::kRead
                              ? ::preadv(fd_.get(), vector.data(), static_cast<int>(count), at)
                              : ::pwritev(fd_.get(), vector.data(), static_cast<int>(count), at);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return IoStatus::kIoError;  // 0: the file was cut short under us
    done += static_cast<u64>(moved);
    skip += static_cast<u64>(moved);
    while (first < buffers.size() && skip >= buffers[first].length) skip -= buffers[first++].length;
  }
  return IoStatus::kOk;
}

IoStatus RawDisk::read(u64 offset, std::span<const IoBuffer> buffers) {
  return transfer(Direction::kRead, offset, buffers);
}

IoStatus RawDisk::write(u64 offset, std::span<const IoBuffer> buffers) {
  if (read_only()) return IoStatus::kReadOnly;
  return transfer(Direction::kWrite, offset, buffers);
}

IoStatus RawDisk::flush() {
  if (read_only()) return IoStatus::kOk;
  while (::fdatasync(fd_.get()) != 0)
    if (errno != EINTR) return IoStatus::kIoError;
  return IoStatus::kOk;
}

IoStatus RawDisk::check_change(u64 offset, u64 length) const {
  if (read_only()) return IoStatus::kReadOnly;
  return range_within(offset, length, size_) ? IoStatus::kOk : IoStatus::kOutOfRange;
}

bool RawDisk::allocate(int mode, u64 offset, u64 length) {
  int result;
  do {
    result = ::fallocate(fd_.get(), mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

IoStatus RawDisk::discard(u64 offset, u64 length) {
  if (const IoStatus status = check_change(offset, length); status != IoStatus::kOk || length == 0) return status;
  if (can_punch_ && !allocate(FALLOC_FL_PUNCH_HOLE, offset, length)) {
    if (errno == EIO) return IoStatus::kIoError;
    can_punch_ = false;
  }
  return IoStatus::kOk;
}

IoStatus RawDisk::write_zeroes(u64 offset, u64 length, bool may_unmap) {
  if (const IoStatus status = check_change(offset, length); status != IoStatus::kOk || length == 0) return status;
  if (may_unmap && can_punch_) {
    if (allocate(FALLOC_FL_PUNCH_HOLE, offset, length)) return IoStatus::kOk;
    can_punch_ = false;
  }
  if (can_zero_range_) {
    if (allocate(FALLOC_FL_ZERO_RANGE, offset, length)) return IoStatus::kOk;
    can_zero_range_ = false;
  }
  return write_zero_bytes(offset, length);
}

IoStatus RawDisk::write_zero_bytes(u64 offset, u64 length) {
  static std::array<std::byte, 64_KiB> zeroes{};
  for (u64 done = 0; done < length;) {
    const IoBuffer piece{zeroes.data(), std::min<u64>(zeroes.size(), length - done)};
    if (const IoStatus status = transfer(Direction::kWrite, offset + done, {&piece, 1}); status != IoStatus::kOk)
      return status;
    done += piece.length;
  }
  return IoStatus::kOk;
}

}  // namespace bulkhead::block
