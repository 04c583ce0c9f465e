// A raw disk: the bytes of a regular file or of a host block device, unchanged.
// Threads: one I/O thread at a time, as block::Disk says. Fidelity: complete for one opener; growing the file while it
// is open is not noticed, shrinking it makes I/O errors.
#pragma once
#include <memory>
#include <string>

#include "base/fd.h"
#include "block/disk.h"

namespace bulkhead::block {


class RawDisk final : public Disk {
 public:
  // Opens and locks `path`: writers exclusively, readers shared, against every other opener that locks (us, and
  // programs that use OFD locks). Errors: not there, neither file nor block device, empty, not a whole number of
  // sectors, or in use.
  static Result<std::unique_ptr<RawDisk>> open(const std::string& path, DiskAccess access, std::string serial = {});

  u64 size_bytes() const override { return size_; }
  bool read_only() const override { return access_ == DiskAccess::kReadOnly; }
  bool supports_discard() const override { return can_punch_ && !read_only(); }
  std::string serial() const override { return serial_; }
  IoStatus read(u64 offset, std::span<const IoBuffer> buffers) override;
  IoStatus write(u64 offset, std::span<const IoBuffer> buffers) override;
  IoStatus flush() override;
  // A hint: where the host cannot unmap it does nothing and says kOk.
  IoStatus discard(u64 offset, u64 length) override;
  IoStatus write_zeroes(u64 offset, u64 length, bool may_unmap) override;

 private:
  RawDisk(UniqueFd fd, u64 size, DiskAccess access, std::string serial)
      : fd_{std::move(fd)}, size_{size}, access_{access}, serial_{std::move(serial)} {}
  enum class Direction : bool { kRead, kWrite };
  IoStatus transfer(Direction direction, u64 offset, std::span<const IoBuffer> buffers);
  IoStatus check_change(u64 offset, u64 length) const;
  bool allocate(int mode, u64 offset, u64 length);  // false: the host cannot do this here
  IoStatus write_zero_bytes(u64 offset, u64 length);

  UniqueFd fd_;
  u64 size_;
  DiskAccess access_;
  std::string serial_;
  bool can_punch_ = true;  // until the host says otherwise
  bool can_zero_range_ = true;
};

}  // namespace bulkhead::block
