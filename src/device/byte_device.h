// What the 8-bit devices of a PC share: the ISA bus splits a wider access into bytes, lowest address first, and a
// device with several port ranges is seen as one array of byte registers.
#pragma once
#include "base/ints.h"
#include "bus/io.h"

namespace bulkhead::device {

// The byte registers of a model, numbered as the model likes. Nothing here can fail: what is not there reads as 0xff
// and ignores writes. Called under the bus lock, on the vCPU that made the access.
class ByteRegisters {
 public:
  virtual u8 read_byte(unsigned index) = 0;
  virtual void write_byte(unsigned index, u8 value) = 0;

 protected:
  ~ByteRegisters() = default;
};

// One port range: `count` registers from `first` on. Attach it with a length of size(). Accesses that reach beyond the
// range are ignored as a whole (the bus does not let them through anyway).
class ByteWindow final : public IoDevice {
 public:
  ByteWindow(ByteRegisters& registers, unsigned first, unsigned count)
      : registers_{registers}, first_{first}, count_{count} {}

  unsigned size() const { return count_; }

  IoReply read(u64 offset, AccessSize size) override {
    if (!holds(offset, size)) return IoReply::ignored();
    u64 value = 0;
    for (unsigned i = 0; i < bytes_of(size); ++i)
      value |= u64{registers_.read_byte(first_ + static_cast<unsigned>(offset) + i)} << (8 * i);
    return IoReply::data(value);
  }

  IoReply write(u64 offset, u64 value, AccessSize size) override {
    if (!holds(offset, size)) return IoReply::ignored();
    for (unsigned i = 0; i < bytes_of(size); ++i)
      registers_.write_byte(first_ + static_cast<unsigned>(offset) + i, static_cast<u8>(value >> (8 * i)));
    return IoReply::done();
  }

 private:
  bool holds(u64 offset, AccessSize size) const { return offset < count_ && bytes_of(size) <= count_ - offset; }

  ByteRegisters& registers_;
  const unsigned first_;
  const unsigned count_;
};

}  // namespace bulkhead::device
