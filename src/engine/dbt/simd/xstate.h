// The layout of the XSAVE image in CpuState::xsave (the host's standard format [SDM-1 §13.4]) and access to single
// registers in it.
#pragma once
#include <array>
#include <cstring>

#include "engine/dbt/cpu/cpu_state.h"

namespace bulkhead::engine::dbt {

inline constexpr u64 kXX87 = 1, kXSse = 2, kXAvx = 4, kXOpmask = 0x20, kXZmmHi = 0x40, kXHi16 = 0x80;
inline constexpr u64 kXAvx512 = kXOpmask | kXZmmHi | kXHi16;
// Components that this engine keeps for a guest. Others (PKRU, AMX, CET) are never given to one.
inline constexpr u64 kXSupported = kXX87 | kXSse | kXAvx | kXAvx512;
inline constexpr u32 kLegacySize = 512, kHeaderSize = 64, kExtendedStart = kLegacySize + kHeaderSize;
inline constexpr u32 kMxcsrDefault = 0x1f80;

struct XComponent {
  u32 offset = 0;  // in the standard format; 0: the host has no such component
  u32 size = 0;
  bool align64 = false;  // in the compacted format
};
struct HostXstate {
  u64 xcr0 = 0;             // host XCR0 & kXSupported
  u32 mxcsr_mask = 0xffff;  // valid MXCSR bits
  bool has_xsaveopt = false;
  std::array<XComponent, 8> component;
};
// Constant after the first call. Any thread.
const HostXstate& host_xstate();

// View of an XSAVE image. Registers of components in their initial configuration read as such; writes mark them in use.
class XsaveView {
 public:
  explicit XsaveView(std::byte* image) : image_{image} {}

  u64 xstate_bv() const { return get<u64>(kLegacySize); }
  void set_xstate_bv(u64 value) { put(kLegacySize, value); }
  u32 mxcsr() const { return get<u32>(24); }
  void set_mxcsr(u32 value) { put(24, value); }
  u64 fip() const { return get<u64>(8); }
  u64 fdp() const { return get<u64>(16); }
  void set_fip(u64 value) { put(8, value); }
  void set_fdp(u64 value) { put(16, value); }

  u64 mask_register(unsigned k) const {
    return xstate_bv() & kXOpmask ? get<u64>(host_xstate().component[5].offset + 8 * k) : 0;
  }
  void set_mask_register(unsigned k, u64 value) {
    use(kXOpmask);
    put(host_xstate().component[5].offset + 8 * k, value);
  }
  // The first `size` (8, 16, 32, 64) bytes of vector register `n` (0..31).
  void read_vector(unsigned n, void* out, unsigned size) const;
  // Writes `size` bytes and zeroes the rest of the register, as VEX and EVEX instructions do.
  void write_vector(unsigned n, const void* in, unsigned size);
  u64 mmx(unsigned n) const { return get<u64>(32 + 16 * n); }

  // Writes the initial configuration into every component of `mask` that XSTATE_BV says is in it (the header is not
  // changed).
  void materialize(u64 mask);

 private:
  template <class T>
  T get(u32 offset) const {
    T value;
    std::memcpy(&value, image_ + offset, sizeof value);
    return value;
  }
  template <class T>
  void put(u32 offset, T value) {
    std::memcpy(image_ + offset, &value, sizeof value);
  }
  void use(u64 component);

  std::byte* image_;
};

// Makes an image from outside (a snapshot, set_state) safe to load: no reserved MXCSR bits, no unknown component,
// standard header.
void sanitize_xsave(CpuState& state);
// The reset state: x87 as after FINIT, everything else zero, MXCSR 0x1f80.
void reset_xsave(CpuState& state);

}  // namespace bulkhead::engine::dbt
