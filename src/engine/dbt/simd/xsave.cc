// The XSAVE family on the guest's own area [SDM-1 §13.5-13.12]. Done by copying components between CpuState::xsave and
// the area, since the guest chooses format and components.
#include <Zydis/Mnemonic.h>

#include "engine/dbt/simd/internal.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kCompacted = u64{1} << 63;
constexpr u32 kXcompOffset = 520, kHeaderTail = 528;

enum class Form : u8 { kSave, kSaveOpt, kSaveCompact, kSaveSupervisor, kRestore, kRestoreSupervisor };
struct Kind {
  Form form;
  bool wide;  // REX.W: 64-bit FIP and FDP
};

Kind kind_of(u16 mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE:
      return {Form::kSave, false};
    case ZYDIS_MNEMONIC_XSAVE64:
      return {Form::kSave, true};
    case ZYDIS_MNEMONIC_XSAVEOPT:
      return {Form::kSaveOpt, false};
    case ZYDIS_MNEMONIC_XSAVEOPT64:
      return {Form::kSaveOpt, true};
    case ZYDIS_MNEMONIC_XSAVEC:
      return {Form::kSaveCompact, false};
    case ZYDIS_MNEMONIC_XSAVEC64:
      return {Form::kSaveCompact, true};
    case ZYDIS_MNEMONIC_XSAVES:
      return {Form::kSaveSupervisor, false};
    case ZYDIS_MNEMONIC_XSAVES64:
      return {Form::kSaveSupervisor, true};
    case ZYDIS_MNEMONIC_XRSTOR:
      return {Form::kRestore, false};
    case ZYDIS_MNEMONIC_XRSTOR64:
      return {Form::kRestore, true};
    case ZYDIS_MNEMONIC_XRSTORS:
      return {Form::kRestoreSupervisor, false};
    default:
      return {Form::kRestoreSupervisor, true};
  }
}

template <class T>
T peek(const std::byte* from, u32 offset) {
  T value;
  std::memcpy(&value, from + offset, sizeof value);
  return value;
}

// Where component i (2..) lies in an area of format `compacted` with components `present`. The area's format is the
// host's, as is CPUID leaf 0xD of every CPU model.
u32 component_offset(unsigned i, u64 present, bool compacted) {
  if (!compacted) return host_xstate().component[i].offset;
  u32 offset = kExtendedStart;
  for (unsigned j = 2; j <= i; ++j) {
    const XComponent& component = host_xstate().component[j];
    if (!((present >> j) & 1)) continue;
    if (component.align64) offset = (offset + 63) & ~63u;
    if (j == i) return offset;
    offset += component.size;
  }
  return offset;
}

u32 area_size(u64 present, bool compacted) {
  u32 size = kExtendedStart;
  for (unsigned i = 2; i < 8; ++i) {
    if (!((present >> i) & 1)) continue;
    const u32 end = component_offset(i, present, compacted) + host_xstate().component[i].size;
    size = end > size ? end : size;
  }
  return size;
}

class Area {
 public:
  Area(const SimdCall& call, u64 linear) : cpu_{call.cpu}, linear_{linear} {}
  void store(u32 offset, const std::byte* from, u32 size) { cpu_.store_bytes(linear_ + offset, from, size); }
  void load(u32 offset, std::byte* to, u32 size) { cpu_.load_bytes(linear_ + offset, to, size); }

 private:
  Cpu& cpu_;
  u64 linear_;
};

// Outside 64-bit mode only registers 0..7 exist, and the rest of their components is neither stored nor loaded.
u32 used_size(const SimdCall& call, unsigned i) {
  const u32 size = host_xstate().component[i].size;
  if (call.insn.mode == CodeSize::k64) return size;
  if (i == 2 || i == 6) return size / 2;
  return i == 7 ? 0 : size;
}
u32 xmm_size(const SimdCall& call) { return call.insn.mode == CodeSize::k64 ? 256 : 128; }

void narrow_pointers(std::byte* legacy) {
  // 32-bit form: offset and a selector that modern CPUs store as 0.
  std::memset(legacy + 12, 0, 4);
  std::memset(legacy + 20, 0, 4);
}

StepResult save(const SimdCall& call, Kind kind, u64 requested, u64 linear) {
  Cpu& cpu = call.cpu;
  SimdScratch& scratch = simd_scratch();
  scratch.image = cpu.s.xsave;
  std::byte* image = scratch.image.data();
  XsaveView view{image};
  view.materialize(kXSupported);
  const bool compacted = kind.form == Form::kSaveCompact || kind.form == Form::kSaveSupervisor;
  u64 in_use = view.xstate_bv() & requested;
  if (compacted && (requested & kXSse) && view.mxcsr() != kMxcsrDefault) in_use |= kXSse;
  const u64 written = kind.form == Form::kSave ? requested : in_use;

  Area area{call, linear};
  cpu.probe_write(linear, area_size(requested, compacted));
  const u64 old_bv = compacted ? 0 : cpu.load(linear + kLegacySize, 8);
  if (!kind.wide) narrow_pointers(image);
  if (written & kXX87) {
    area.store(0, image, 24);
    area.store(32, image + 32, 128);
  }
  const bool mxcsr = compacted ? (written & kXSse) != 0 : (requested & (kXSse | kXAvx)) != 0;
  if (mxcsr) {
    std::memcpy(image + 28, &host_xstate().mxcsr_mask, 4);
    area.store(24, image + 24, 8);
  }
  if (written & kXSse) area.store(160, image + 160, xmm_size(call));
  for (unsigned i = 2; i < 8; ++i)
    if ((written >> i) & 1 && used_size(call, i))
      area.store(component_offset(i, requested, compacted), image + host_xstate().component[i].offset,
                 used_size(call, i));
  const u64 header[2] = {compacted ? in_use : (old_bv & ~requested) | in_use, requested | kCompacted};
  area.store(kLegacySize, reinterpret_cast<const std::byte*>(header), compacted ? 16 : 8);
  return advance(call);
}

// #GP for headers that the CPU refuses. `area` holds at least the legacy region and the header.
void check_header(const SimdCall& call, Kind kind, const std::byte* area) {
  Cpu& cpu = call.cpu;
  const u64 bv = peek<u64>(area, kLegacySize), comp = peek<u64>(area, kXcompOffset);
  const u64 allowed = cpu.s.xcr0 | (kind.form == Form::kRestoreSupervisor ? cpu.s.xss : 0);
  bool bad = false;
  if (comp & kCompacted) {
    bad = (comp & ~kCompacted & ~allowed) || (bv & ~comp);
    for (u32 at = kHeaderTail; at < kExtendedStart; at += 8) bad |= peek<u64>(area, at) != 0;
  } else {
    bad = kind.form == Form::kRestoreSupervisor || (bv & ~allowed) || comp || peek<u64>(area, kHeaderTail);
  }
  if (bad) cpu.raise(kGp, 0);
}

StepResult restore(const SimdCall& call, Kind kind, u64 requested, u64 linear) {
  Cpu& cpu = call.cpu;
  SimdScratch& scratch = simd_scratch();
  std::byte* area = scratch.image.data();
  cpu.load_bytes(linear, area, kExtendedStart);
  check_header(call, kind, area);
  const bool compacted = peek<u64>(area, kXcompOffset) & kCompacted;
  const u64 bv = peek<u64>(area, kLegacySize);
  const u64 present = compacted ? peek<u64>(area, kXcompOffset) & ~kCompacted : host_xstate().xcr0;
  const u64 loaded = requested & bv;
  const u32 size = area_size(loaded ? (compacted ? present : loaded) : 0, compacted);
  if (size > kExtendedStart) cpu.load_bytes(linear + kExtendedStart, area + kExtendedStart, size - kExtendedStart);
  const bool mxcsr_loaded = compacted ? (loaded & kXSse) != 0 : (requested & (kXSse | kXAvx)) != 0;
  const u32 mxcsr = peek<u32>(area, 24);
  if (mxcsr_loaded && (mxcsr & ~host_xstate().mxcsr_mask)) cpu.raise(kGp, 0);

  // Nothing faults from here on.
  std::byte* image = cpu.s.xsave.data();
  XsaveView view{image};
  view.materialize(kXSupported);
  const bool narrow = call.insn.mode != CodeSize::k64;
  u64 in_use = (view.xstate_bv() & ~requested) | loaded;
  if (narrow) in_use |= view.xstate_bv() & requested & (kXSse | kXAvx | kXZmmHi | kXHi16);  // registers 8 and up stay
  if (loaded & kXX87) {
    if (!kind.wide) narrow_pointers(area);
    std::memcpy(image, area, 24);
    std::memcpy(image + 32, area + 32, 128);
  }
  for (unsigned i = 1; i < 8; ++i) {
    if (!((requested >> i) & 1)) continue;
    const u32 length = i == 1 ? xmm_size(call) : used_size(call, i);
    std::byte* to = image + host_xstate().component[i].offset;
    if ((loaded >> i) & 1)
      std::memcpy(to, area + (i == 1 ? 160 : component_offset(i, present, compacted)), length);
    else
      std::memset(to, 0, length);
  }
  if (mxcsr_loaded)
    view.set_mxcsr(mxcsr);
  else if (compacted && (requested & kXSse))
    view.set_mxcsr(kMxcsrDefault);
  view.set_xstate_bv(in_use & host_xstate().xcr0);
  if ((requested & kXX87) && !(loaded & kXX87)) {
    view.set_xstate_bv(view.xstate_bv() & ~kXX87);
    view.materialize(kXX87);
  }
  return advance(call);
}

}  // namespace

StepResult execute_xsave_family(const SimdCall& call) {
  Cpu& cpu = call.cpu;
  const Kind kind = kind_of(call.insn.mnemonic);
  const bool supervisor = kind.form == Form::kSaveSupervisor || kind.form == Form::kRestoreSupervisor;
  const bool restores = kind.form == Form::kRestore || kind.form == Form::kRestoreSupervisor;
  if (supervisor && cpu.s.cpl != 0) cpu.raise(kGp, 0);
  const u64 components = (cpu.s.xcr0 | (supervisor ? cpu.s.xss : 0)) & host_xstate().xcr0;
  const u64 requested = components & ((cpu.s.gpr[kRax] & 0xffffffff) | cpu.s.gpr[kRdx] << 32);
  if (unchecked_linear(call) & 63) cpu.raise(kGp, 0);
  const u64 linear = cpu.linear_of(call.insn, kExtendedStart, restores ? Access::kRead : Access::kWrite);
  return restores ? restore(call, kind, requested, linear) : save(call, kind, requested, linear);
}

}  // namespace bulkhead::engine::dbt
