// The vCPU's whole state to and from the engine-neutral form.
#include <algorithm>
#include <cstring>

#include "engine/dbt/simd/simd.h"
#include "engine/dbt/simd/xstate.h"
#include "engine/dbt/vcpu.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u32 kMsrTsc = 0x10, kMsrApicBase = 0x1b, kMsrTscAdjust = 0x3b, kMsrTscDeadline = 0x6e0;

// Ascending. Those that the CPU model lacks fault when read, and are left out.
constexpr u32 kMsrs[] = {
    kMsrTsc,    kMsrApicBase, kMsrTscAdjust, 0x48,       0x174,      0x175,     0x176, 0x1a0, 0x1d9,           0x200,
    0x201,      0x202,        0x203,         0x204,      0x205,      0x206,     0x207, 0x208, 0x209,           0x20a,
    0x20b,      0x20c,        0x20d,         0x20e,      0x20f,      0x250,     0x258, 0x259, 0x268,           0x269,
    0x26a,      0x26b,        0x26c,         0x26d,      0x26e,      0x26f,     0x277, 0x2ff, kMsrTscDeadline, 0xda0,
    0xc0000081, 0xc0000082,   0xc0000083,    0xc0000084, 0xc0000102, 0xc0000103};

SegmentState save_segment(const Segment& segment) {
  return {segment.selector, segment.base, segment.limit, segment.attributes};
}
Segment load_segment(const SegmentState& state) { return {state.selector, state.attributes, state.limit, state.base}; }

// An MSR's value, or nothing when it faults or is not ours.
std::optional<u64> read_msr(Cpu& cpu, u32 index) {
  const Exit kept = cpu.exit;
  volatile u64 value = 0;
  BH_GUARD(cpu) { value = cpu.read_msr(index); }
  cpu.exit = kept;
  if (cpu.escape_kind != Escape::kNone) return std::nullopt;
  return value;
}

bool write_msr(Cpu& cpu, u32 index, u64 value) {
  const Exit kept = cpu.exit;
  BH_GUARD(cpu) { cpu.write_msr(index, value); }
  cpu.exit = kept;
  return cpu.escape_kind == Escape::kNone;
}

u64 msr_of(const VcpuState& state, u32 index, u64 otherwise) {
  const auto found = std::ranges::find(state.msrs, index, &MsrValue::index);
  return found == state.msrs.end() ? otherwise : found->value;
}

u8 privilege_of(const VcpuState& state) {
  if (!(state.cr0 & kCr0Pe)) return 0;
  if (state.rflags & kVm) return 3;
  const SegmentState& ss = state.segments[kSs];
  if (ss.attributes & kSegmentUnusable) return state.segments[kCs].selector & 3;
  return (ss.attributes >> 5) & 3;
}

}  // namespace

VcpuState DbtVcpu::state() {
  cpu_.spill_fpu();
  const CpuState& s = cpu_.s;
  VcpuState out;
  out.gpr = s.gpr;
  out.rip = s.rip;
  out.rflags = s.rflags;
  for (std::size_t i = 0; i < 6; ++i) out.segments[i] = save_segment(s.seg[i]);
  out.ldtr = save_segment(s.ldtr);
  out.tr = save_segment(s.tr);
  out.gdtr = {s.gdtr.base, static_cast<u16>(s.gdtr.limit)};
  out.idtr = {s.idtr.base, static_cast<u16>(s.idtr.limit)};
  out.cr0 = s.cr0, out.cr2 = s.cr2, out.cr3 = s.cr3, out.cr4 = s.cr4;
  out.cr8 = cpu_.lapic->cr8();
  out.efer = s.efer;
  out.xcr0 = s.xcr0;
  out.dr = s.dr;
  save_msrs(out);
  out.xsave.assign(s.xsave.begin(), s.xsave.begin() + xsave_area_size(cpu_.features.xcr0_allowed));
  cpu_.lapic->save(out.lapic);
  if (injected_fault_) {
    out.pending_exception =
        PendingEvent{.vector = injected_fault_->vector, .error_code = {}, .address = injected_fault_->address};
    if (injected_fault_->has_error) out.pending_exception->error_code = injected_fault_->error;
  }
  out.pending_interrupt = injected_interrupt_;
  const u32 pending = s.pending.load(std::memory_order_acquire);
  out.nmi_pending = (pending & kPendingNmi) != 0;
  out.nmi_blocked = s.nmi_blocked;
  out.interrupt_shadow = s.interrupt_shadow;
  if (pending & kPendingInit)
    out.mp_state = MpState::kInitReceived;
  else if (cpu_.lapic->waiting_for_sipi())
    out.mp_state = MpState::kWaitForSipi;
  else
    out.mp_state = s.halted ? MpState::kHalted : MpState::kRunnable;
  return out;
}

void DbtVcpu::save_msrs(VcpuState& out) {
  for (const u32 index : kMsrs)
    if (const auto value = read_msr(cpu_, index)) {
      out.msrs.push_back({index, *value});
      if (index == kMsrTsc) shown_tsc_ = *value;
    }
}

// What a processor could never be in is refused, so that the rest of the engine need not expect it.
Result<void> DbtVcpu::check(const VcpuState& state) const {
  const CpuFeatures& features = cpu_.features;
  const bool paging = state.cr0 & kCr0Pg, lma = state.efer & kEferLma;
  if (state.cr0 >> 32 || (paging && !(state.cr0 & kCr0Pe)))
    return fail("vCPU state: CR0 {:#x} is not possible", state.cr0);
  if (state.cr4 & ~features.cr4_allowed)
    return fail("vCPU state: CR4 {:#x} has bits that the CPU model lacks ({:#x})", state.cr4,
                state.cr4 & ~features.cr4_allowed);
  if (state.efer & ~(features.efer_allowed | kEferLma))
    return fail("vCPU state: EFER {:#x} has bits that the CPU model lacks", state.efer);
  if (lma != (paging && (state.efer & kEferLme)) || (lma && !(state.cr4 & kCr4Pae)))
    return fail("vCPU state: EFER {:#x}, CR0 {:#x} and CR4 {:#x} contradict each other", state.efer, state.cr0,
                state.cr4);
  if (!(state.xcr0 & 1) || (state.xcr0 & ~features.xcr0_allowed))
    return fail("vCPU state: XCR0 {:#x} is not possible with this CPU model", state.xcr0);
  if (state.xsave.size() > cpu_.s.xsave.size())
    return fail("vCPU state: an XSAVE area of {} bytes is longer than {}", state.xsave.size(), cpu_.s.xsave.size());
  if (state.cr8 > 15) return fail("vCPU state: CR8 {:#x} is above 15", state.cr8);
  return {};
}

Result<void> DbtVcpu::set_state(const VcpuState& state) {
  BH_TRY(check(state));
  cpu_.spill_fpu();
  // An exit stays owed only if this is the same instruction: a hypercall's results, say.
  if (state.rip != cpu_.s.rip) {
    owed_ = false;
    cpu_.instruction_done();
  }
  shut_down_ = false;
  load_registers(state);
  BH_TRY(load_lapic(state));
  BH_TRY(load_msrs(state));
  load_events(state);
  cpu_.update_cpl(privilege_of(state));
  cpu_.mode_changed();
  cpu_.flush_tlb(true);
  cpu_.interrupts_may_be_deliverable();
  return {};
}

void DbtVcpu::load_registers(const VcpuState& state) {
  CpuState& s = cpu_.s;
  s.gpr = state.gpr;
  s.rip = state.rip;
  constexpr u64 kDefined = kArithmeticFlags | kTf | kIf | kDf | kIopl | kNt | kRf | kVm | kAc | kVif | kVip | kId;
  s.rflags = (state.rflags & kDefined) | 2;
  for (std::size_t i = 0; i < 6; ++i) s.seg[i] = load_segment(state.segments[i]);
  s.ldtr = load_segment(state.ldtr);
  s.tr = load_segment(state.tr);
  s.gdtr = {state.gdtr.base, state.gdtr.limit};
  s.idtr = {state.idtr.base, state.idtr.limit};
  s.cr0 = state.cr0 | kCr0Et, s.cr2 = state.cr2, s.cr3 = state.cr3, s.cr4 = state.cr4;
  s.efer = state.efer;
  s.xcr0 = state.xcr0;
  s.dr = state.dr;
  s.dr[4] = s.dr[5] = 0;
  reset_xsave(s);
  if (state.xsave.size() >= kExtendedStart) {
    std::memcpy(s.xsave.data(), state.xsave.data(), state.xsave.size());
    sanitize_xsave(s);
  }
}

// A clock that was read by state() and comes back unchanged goes on: it has not stood still meanwhile. One that is set
// to within a second of vCPU 0's is meant to agree with that, or a guest would see its clocks apart by what passed
// between two calls. vCPU 0 itself leads: the others may not have been written yet.
void DbtVcpu::load_tsc(u64 value) {
  if (value == shown_tsc_) return;
  u64& offset = cpu_.s.tsc_offset;
  offset = value - (cpu_.read_tsc() - offset);
  const u64 second = cpu_.shared.features.tsc_hz;
  const Cpu& lead = *cpu_.shared.cpus.front();
  if (&lead != &cpu_ && offset - lead.s.tsc_offset + second < 2 * second) offset = lead.s.tsc_offset;
}

Result<void> DbtVcpu::load_lapic(const VcpuState& state) {
  Lapic& lapic = *cpu_.lapic;
  load_tsc(msr_of(state, kMsrTsc, shown_tsc_));
  cpu_.s.tsc_adjust = msr_of(state, kMsrTscAdjust, cpu_.s.tsc_adjust);
  const u64 base = msr_of(state, kMsrApicBase, lapic.apic_base());
  if ((base & 0xc00) == 0x400) return fail("vCPU state: IA32_APIC_BASE {:#x} is not possible", base);
  lapic.load(state.lapic, base, msr_of(state, kMsrTscDeadline, lapic.tsc_deadline()));
  if (lapic.cr8() != state.cr8) lapic.set_cr8(static_cast<u8>(state.cr8));
  return {};
}

Result<void> DbtVcpu::load_msrs(const VcpuState& state) {
  for (const MsrValue& msr : state.msrs) {
    if (msr.index == kMsrTsc || msr.index == kMsrApicBase || msr.index == kMsrTscAdjust || msr.index == kMsrTscDeadline)
      continue;                                            // with the LAPIC
    if (read_msr(cpu_, msr.index) == msr.value) continue;  // also what is read-only
    if (!write_msr(cpu_, msr.index, msr.value))
      return fail("vCPU state: MSR {:#x} cannot be set to {:#x} with this CPU model", msr.index, msr.value);
  }
  return {};
}

void DbtVcpu::load_events(const VcpuState& state) {
  CpuState& s = cpu_.s;
  injected_fault_.reset();
  if (const auto& event = state.pending_exception)
    injected_fault_ =
        Fault{event->vector, event->error_code.has_value(), event->error_code.value_or(0), event->address};
  injected_interrupt_ = state.pending_interrupt;
  s.nmi_blocked = state.nmi_blocked;
  s.interrupt_shadow = state.interrupt_shadow;
  s.halted = state.mp_state != MpState::kRunnable;
  cpu_.lapic->set_waiting_for_sipi(state.mp_state == MpState::kWaitForSipi);
  if (state.nmi_pending) cpu_.lapic->signal(kPendingNmi);
  if (state.mp_state == MpState::kInitReceived) cpu_.lapic->signal(kPendingInit);
}

}  // namespace bulkhead::engine::dbt
