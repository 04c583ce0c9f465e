// Moves the guest's x87 and vector state between the host's registers and CpuState::xsave.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/simd/xstate.h"

namespace bulkhead::engine::dbt {
namespace {

// All components initial, MXCSR default: what our own C++ code expects to find.
struct alignas(64) HostDefaults {
  u8 bytes[4096];
};
constexpr HostDefaults make_host_defaults() {
  HostDefaults image{};
  image.bytes[0] = 0x7f;
  image.bytes[1] = 0x03;
  image.bytes[24] = 0x80;
  image.bytes[25] = 0x1f;
  return image;
}
constinit HostDefaults host_defaults = make_host_defaults();

u32 usable(const Cpu& cpu) {
  return static_cast<u32>(host_xstate().xcr0 & (cpu.shared.cpu_model.xcr0_mask | kXX87 | kXSse));
}

}  // namespace

void Cpu::spill_fpu() {
  if (!s.fpu_live) return;
  const u32 mask = usable(*this);
  // XSAVEOPT may leave out what is unchanged since the XRSTOR from this very image. Nothing writes the image while
  // fpu_live is set, so what is left out is there already.
  if (host_xstate().has_xsaveopt)
    asm volatile("xsaveopt64 (%0)" : : "r"(s.xsave.data()), "a"(mask), "d"(0) : "memory");
  else
    asm volatile("xsave64 (%0)" : : "r"(s.xsave.data()), "a"(mask), "d"(0) : "memory");
  asm volatile("xrstor64 (%0)" : : "r"(&host_defaults), "a"(static_cast<u32>(host_xstate().xcr0)), "d"(0) : "memory");
  s.fpu_live = false;
}

void Cpu::fill_fpu() {
  if (s.fpu_live) return;
  asm volatile("xrstor64 (%0)" : : "r"(s.xsave.data()), "a"(usable(*this)), "d"(0) : "memory");
  s.fpu_live = true;
}

}  // namespace bulkhead::engine::dbt
