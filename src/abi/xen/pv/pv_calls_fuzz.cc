// The PV hypercalls, traps and instructions of a guest that does anything, on a vCPU that runs nothing.
#include <xen/sched.h>

#include "abi/xen/pv/testing/small_machine.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::abi::xen::pv;

struct Input {
  const uint8_t* data;
  size_t size;
  u64 take(unsigned bytes) {
    u64 value = 0;
    for (unsigned i = 0; i < bytes && size != 0; ++i, --size) value |= u64{*data++} << 8 * i;
    return value;
  }
  // Mostly something that means something.
  u64 argument(const Layout& layout) {
    const u64 small = take(2);
    switch (take(1) % 8) {
      case 0:
        return small;
      case 1:
        return testing::address(small % testing::kFrames);
      case 2:
        return (small % layout.all_frames) << 12 | (take(1) * 8);
      case 3:
        return make_entry(small % layout.all_frames, take(1));
      case 4:
        return testing::kHypervisor + (small << 12);
      case 5:
        return 0x7ff0;  // DOMID_SELF
      case 6:
        return testing::address(testing::kFirstFree + small % 64, take(1) * 8);
      default:
        return take(8);
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  testing::SmallMachine m;
  Input in{data, size};
  m.set_trap(13, testing::address(120));
  m.set_trap(14, testing::address(121));
  while (in.size != 0 && m.ends.empty()) {
    const auto which = in.take(1);
    if (m.cpu.halted()) break;
    if (which < 32) {
      u64* const page = m.table(testing::kFirstFree + which % 8);
      for (unsigned i = 0; i < 8; ++i) page[in.take(1)] = in.argument(m.layout);
    } else if (which < 40) {
      m.cpu.code.clear();
      for (unsigned i = 0; i < 8; ++i) m.cpu.code.push_back(static_cast<std::byte>(in.take(1)));
      m.exception(which < 36 ? 13 : 6, 0);
    } else if (which < 44) {
      m.exception(14, static_cast<u32>(in.take(1)), in.argument(m.layout));
    } else {
      if (m.cpu.mode() == engine::GuestMode::kUser) break;
      const u64 number = which % 64;
      m.call(number, {in.argument(m.layout), in.argument(m.layout), in.argument(m.layout), in.argument(m.layout)});
    }
  }
  return 0;
}
