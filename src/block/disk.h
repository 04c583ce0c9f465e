// The contents of a disk, as devices see them. Knows no device. Calls come from one I/O thread per device and may
// block.
#pragma once
#include <span>

#include "base/ints.h"
#include "base/result.h"
#include "block/node/node.h"
#include "block/status.h"

namespace bulkhead::block {

class Disk {
 public:
  virtual ~Disk() = default;
  virtual u64 size_bytes() const = 0;  // a multiple of kSectorSize
  virtual bool read_only() const = 0;
  virtual bool supports_discard() const { return false; }
  virtual std::string serial() const { return {}; }
  // `offset` in bytes, sector aligned; the sum of lengths is sector aligned. Out of range is an answer, never a crash.
  virtual IoStatus read(u64 offset, std::span<const IoBuffer> buffers) = 0;
  virtual IoStatus write(u64 offset, std::span<const IoBuffer> buffers) = 0;
  virtual IoStatus flush() = 0;
  virtual IoStatus discard(u64 offset, u64 length) = 0;
  virtual IoStatus write_zeroes(u64 offset, u64 length, bool may_unmap) = 0;
};

}  // namespace bulkhead::block
