// xoshiro256**, seeded by splitmix64: the same numbers everywhere.
#pragma once
#include <array>

#include "base/ints.h"

namespace bulkhead::insn {

class Random {
 public:
  explicit Random(u64 seed) {
    for (u64& word : state_) {
      seed += 0x9e3779b97f4a7c15;
      u64 z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
      z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
      word = z ^ (z >> 31);
    }
  }
  u64 next() {
    const u64 result = rotate(state_[1] * 5, 7) * 9;
    const u64 t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = rotate(state_[3], 45);
    return result;
  }
  // 0..limit-1
  u32 below(u32 limit) { return static_cast<u32>((next() >> 32) * limit >> 32); }
  bool chance(u32 percent) { return below(100) < percent; }

 private:
  static u64 rotate(u64 x, int k) { return x << k | x >> (64 - k); }
  std::array<u64, 4> state_;
};

}  // namespace bulkhead::insn
