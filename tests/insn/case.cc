#include "tests/insn/case.h"

#include "tests/insn/random.h"

namespace bulkhead::insn {

const std::array<u8, kDataSize>& initial_data() {
  static const auto data = [] {
    std::array<u8, kDataSize> bytes;
    Random random{0x6461746120706167};
    for (u8& byte : bytes) byte = static_cast<u8>(random.next());
    return bytes;
  }();
  return data;
}

}  // namespace bulkhead::insn
