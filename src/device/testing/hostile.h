// The bad guest every device meets: all widths at all offsets, also outside, with values that hurt.
#pragma once
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "base/ints.h"
#include "bus/io.h"

namespace bulkhead::device::testing {

inline constexpr std::array kAllSizes{AccessSize::k1, AccessSize::k2, AccessSize::k4, AccessSize::k8};

// Reads and writes every width at every offset in [0, length + 16) and at the far end of the address space. Inside, an
// access of any width must be answered one way or the other; outside it must be ignored.
inline void sweep(IoDevice& device, u64 length) {
  for (const AccessSize size : kAllSizes)
    for (const u64 value : {u64{0}, ~u64{0}, u64{0x5555555555555555}, u64{0x8040201008040201}})
      for (u64 i = 0; i < length + 32; ++i) {
        const u64 offset = i < length + 16 ? i : ~u64{0} - (i - length - 16);
        const IoReply write = device.write(offset, value, size);
        const IoReply read = device.read(offset, size);
        if (offset >= length) {
          EXPECT_FALSE(write.handled) << offset;
          EXPECT_FALSE(read.handled) << offset;
        }
        if (!read.handled) {
          EXPECT_EQ(read.value, ~u64{0}) << offset;
        }
      }
}

// `count` random accesses; `between` runs after each, e.g. to move the clock.
template <class Between>
void babble(IoDevice& device, u64 length, unsigned seed, unsigned count, Between between) {
  std::mt19937_64 random{seed};
  for (unsigned i = 0; i < count; ++i) {
    const u64 offset = random() % (length + 2);
    const AccessSize size = kAllSizes[random() % 8 < 5 ? 0 : random() % 4];
    if (random() % 2)
      device.write(offset, random() >> (random() % 57), size);
    else
      device.read(offset, size);
    between(random());
  }
}

// A wire that remembers: its level and how often it rose.
class FakeLine final : public IrqLine {
 public:
  void set(bool asserted) override {
    if (asserted && !level) ++rises;
    level = asserted;
  }
  bool level = false;
  u64 rises = 0;
};

}  // namespace bulkhead::device::testing
