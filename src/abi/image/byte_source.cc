#include "abi/image/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstring>

#include "base/bits.h"

namespace bulkhead::abi {
namespace {
std::unexpected<Error> outside(u64 offset, u64 length, u64 size) {
  return fail("truncated: {} bytes at offset {:#x} are needed, but there are only {} bytes in all", length, offset,
              size);
}
}  // namespace

Result<void> MemorySource::read(u64 offset, std::span<std::byte> out) const {
  if (!range_within(offset, out.size(), bytes_.size())) return outside(offset, out.size(), bytes_.size());
  if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
  return {};
}

Result<FileSource> FileSource::open(std::string_view what, const std::string& path) {
  // O_NONBLOCK: a FIFO given by mistake must not hang us before we can refuse it.
  UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (!fd) return fail_errno("cannot open the {} {}", what, path);
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return fail_errno("cannot examine the {} {}", what, path);
  if (!S_ISREG(info.st_mode)) return fail("the {} {} is not a regular file", what, path);
  return FileSource{std::move(fd), static_cast<u64>(info.st_size)};
}

Result<void> FileSource::read(u64 offset, std::span<std::byte> out) const {
  if (!range_within(offset, out.size(), size_)) return outside(offset, out.size(), size_);
  for (u64 done = 0; done < out.size();) {
    const ssize_t n = ::pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("cannot read {} bytes at offset {:#x}", out.size() - done, offset + done);
    if (n == 0) return fail("truncated while it was read: it ends at offset {:#x}", offset + done);
    done += static_cast<u64>(n);
  }
  return {};
}

}  // namespace bulkhead::abi
