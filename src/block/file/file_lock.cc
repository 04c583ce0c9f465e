#include "block/file/file_lock.h"

#include <fcntl.h>

#include <chrono>
#include <thread>

namespace bulkhead::block {
namespace {

enum Use : unsigned { kRead = 1 << 0, kWrite = 1 << 1, kResize = 1 << 3 };
constexpr unsigned kUses = 4;
constexpr off_t kDoes = 100, kForbids = 200;

struct flock one_byte(short type, off_t at) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = 1;
  return lock;
}

// False: the file system has no such locks. Errors: another has the byte for itself.
Result<bool> take(int fd, const std::string& path, off_t base, unsigned uses) {
  for (unsigned n = 0; n < kUses; ++n) {
    if (!(uses & 1u << n)) continue;
    struct flock lock = one_byte(F_RDLCK, base + n);
    if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) continue;
    if (errno != EAGAIN && errno != EACCES) return false;
    return fail("disk '{}' is in use by another zone or program; stop it, or work on a copy", path);
  }
  return true;
}

bool anybody_has(int fd, off_t base, unsigned uses) {
  for (unsigned n = 0; n < kUses; ++n) {
    if (!(uses & 1u << n)) continue;
    struct flock lock = one_byte(F_WRLCK, base + n);
    if (::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) return true;
  }
  return false;
}

Result<void> lock_once(int fd, const std::string& path, DiskAccess access, FileLock lock) {
  const bool writes = access == DiskAccess::kReadWrite;
  const unsigned does = writes ? kRead | kWrite | kResize : kRead;
  const unsigned forbids = lock == FileLock::kShared ? 0 : kWrite | kResize;
  BH_ASSIGN(const bool locks_uses, take(fd, path, kDoes, does));
  BH_ASSIGN(const bool locks_bans, take(fd, path, kForbids, forbids));
  // A file system without locks: readers may go on, a writer could destroy somebody's data.
  if (!locks_uses || !locks_bans) {
    if (!writes) return {};
    return fail("cannot lock disk '{}' for writing; move it to a file system that has locks", path);
  }
  // Both have put down their locks before they look, so that at least one of two sees the other.
  if (!anybody_has(fd, kForbids, does) && !anybody_has(fd, kDoes, forbids)) return {};
  unlock_file(fd);
  return fail("disk '{}' is in use by another zone or program; stop it, or work on a copy", path);
}

}  // namespace

Result<void> lock_file(int fd, const std::string& path, DiskAccess access, FileLock lock) {
  if (lock == FileLock::kNone) return {};
  // The kernel clears up after a program that was killed in the middle of its I/O a moment after it is gone.
  for (int tries = 10;; --tries) {
    Result<void> locked = lock_once(fd, path, access, lock);
    if (locked || tries == 0) return locked;
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
}

// Each of two open files has locks of its own, so the old one's bans come off first.
Result<void> lock_instead(int fd, int old, const std::string& path, DiskAccess access, DiskAccess before) {
  unlock_file(old);
  Result<void> locked = lock_file(fd, path, access, FileLock::kAsUsed);
  if (locked) return {};
  BH_TRY(lock_file(old, path, before, FileLock::kAsUsed));
  return locked;
}

void unlock_file(int fd) {
  struct flock lock{};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  ::fcntl(fd, F_OFD_SETLK, &lock);
}

}  // namespace bulkhead::block
