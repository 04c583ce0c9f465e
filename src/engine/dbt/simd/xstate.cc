#include "engine/dbt/simd/xstate.h"

#include <cpuid.h>

#include "engine/dbt/simd/simd.h"

namespace bulkhead::engine::dbt {
namespace {

u64 read_xcr0() {
  u32 low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low | u64{high} << 32;
}

HostXstate look() {
  HostXstate host;
  u32 a, b, c, d;
  host.xcr0 = read_xcr0() & kXSupported;
  host.component[0] = {0, 160, false};
  host.component[1] = {160, 256, false};
  for (unsigned i = 2; i < 8; ++i) {
    if (!((host.xcr0 >> i) & 1)) continue;
    __cpuid_count(0xd, i, a, b, c, d);
    host.component[i] = {b, a, (c & 2) != 0};
  }
  __cpuid_count(0xd, 1, a, b, c, d);
  host.has_xsaveopt = a & 1;
  alignas(64) std::array<std::byte, 512> legacy{};
  asm volatile("fxsave64 %0" : "+m"(legacy));
  std::memcpy(&host.mxcsr_mask, &legacy[28], 4);
  if (host.mxcsr_mask == 0) host.mxcsr_mask = 0xffbf;  // [SDM-1 §11.6.6]
  return host;
}

}  // namespace

const HostXstate& host_xstate() {
  static const HostXstate host = look();
  return host;
}

void XsaveView::read_vector(unsigned n, void* out, unsigned size) const {
  const HostXstate& host = host_xstate();
  const u64 in_use = xstate_bv();
  std::array<std::byte, 64> value{};
  if (n < 16) {
    if (in_use & kXSse) std::memcpy(&value[0], image_ + 160 + 16 * n, 16);
    if (in_use & kXAvx) std::memcpy(&value[16], image_ + host.component[2].offset + 16 * n, 16);
    if (in_use & kXZmmHi) std::memcpy(&value[32], image_ + host.component[6].offset + 32 * n, 32);
  } else if (in_use & kXHi16) {
    std::memcpy(&value[0], image_ + host.component[7].offset + 64 * (n - 16), 64);
  }
  std::memcpy(out, value.data(), size);
}

void XsaveView::write_vector(unsigned n, const void* in, unsigned size) {
  const HostXstate& host = host_xstate();
  std::array<std::byte, 64> value{};
  std::memcpy(value.data(), in, size);
  if (n >= 16) {
    use(kXHi16);
    std::memcpy(image_ + host.component[7].offset + 64 * (n - 16), &value[0], 64);
    return;
  }
  use(kXSse);
  std::memcpy(image_ + 160 + 16 * n, &value[0], 16);
  if (size > 16) use(kXAvx);
  if (xstate_bv() & kXAvx) std::memcpy(image_ + host.component[2].offset + 16 * n, &value[16], 16);
  if (size > 32) use(kXZmmHi);
  if (xstate_bv() & kXZmmHi) std::memcpy(image_ + host.component[6].offset + 32 * n, &value[32], 32);
}

void XsaveView::use(u64 component) {
  if ((xstate_bv() & component) || !(host_xstate().xcr0 & component)) return;
  materialize(component);
  set_xstate_bv(xstate_bv() | component);
}

void XsaveView::materialize(u64 mask) {
  const u64 initial = mask & ~xstate_bv();
  if (initial & kXX87) {
    std::memset(image_, 0, 24);
    std::memset(image_ + 32, 0, 128);
    put<u16>(0, 0x37f);
  }
  for (unsigned i = 1; i < 8; ++i) {
    const XComponent& component = host_xstate().component[i];
    if ((initial >> i) & 1 && component.size) std::memset(image_ + component.offset, 0, component.size);
  }
}

void sanitize_xsave(CpuState& state) {
  XsaveView view{state.xsave.data()};
  view.set_mxcsr(view.mxcsr() & host_xstate().mxcsr_mask);
  const u64 in_use = view.xstate_bv() & host_xstate().xcr0;
  std::memset(&state.xsave[kLegacySize], 0, kHeaderSize);
  view.set_xstate_bv(in_use);
}

void reset_xsave(CpuState& state) {
  state.xsave.fill(std::byte{0});
  XsaveView view{state.xsave.data()};
  view.materialize(kXX87);
  view.set_mxcsr(kMxcsrDefault);
}

u32 xsave_area_size(u64 xcr0) {
  u32 size = kExtendedStart;
  for (unsigned i = 2; i < 8; ++i) {
    const XComponent& component = host_xstate().component[i];
    if ((xcr0 >> i) & 1 && component.offset + component.size > size) size = component.offset + component.size;
  }
  return size;
}

}  // namespace bulkhead::engine::dbt
