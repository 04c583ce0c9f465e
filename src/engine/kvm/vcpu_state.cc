// The vCPU's whole state to and from the engine-neutral form.
#include <x86intrin.h>

#include <algorithm>
#include <cstring>

#include "base/bits.h"
#include "engine/kvm/ioctl.h"
#include "engine/kvm/msr_list.h"
#include "engine/kvm/vcpu.h"

namespace bulkhead::engine::kvm {
namespace {

constexpr u32 kMsrTsc = 0x10, kMsrApicBase = 0x1b, kMsrTscAdjust = 0x3b, kMsrTscDeadline = 0x6e0;
constexpr u8 kPageFault = 14;
constexpr std::size_t kTaskPriority = 0x80;  // in the LAPIC's page

SegmentState from_kvm(const kvm_segment& in) {
  const unsigned attributes = in.type | in.s << 4 | in.dpl << 5 | in.present << 7 | in.avl << 8 | in.l << 9 |
                              in.db << 10 | in.g << 11 | (in.unusable ? kSegmentUnusable : 0u);
  return {in.selector, in.base, in.limit, static_cast<u16>(attributes)};
}

kvm_segment to_kvm(const SegmentState& in) {
  kvm_segment out{};
  const auto field = [&](unsigned shift, unsigned mask) { return static_cast<u8>(in.attributes >> shift & mask); };
  out.base = in.base, out.limit = in.limit, out.selector = in.selector;
  out.type = field(0, 15), out.s = field(4, 1), out.dpl = field(5, 3), out.present = field(7, 1);
  out.avl = field(8, 1), out.l = field(9, 1), out.db = field(10, 1), out.g = field(11, 1), out.unusable = field(12, 1);
  if (out.unusable) out.present = 0;
  return out;
}

void gpr_from_kvm(const kvm_regs& r, VcpuState& out) {
  out.gpr = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
             r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
  out.rip = r.rip;
  out.rflags = r.rflags;
}

kvm_regs gpr_to_kvm(const VcpuState& s) {
  kvm_regs r{};
  r.rax = s.gpr[0], r.rcx = s.gpr[1], r.rdx = s.gpr[2], r.rbx = s.gpr[3];
  r.rsp = s.gpr[4], r.rbp = s.gpr[5], r.rsi = s.gpr[6], r.rdi = s.gpr[7];
  r.r8 = s.gpr[8], r.r9 = s.gpr[9], r.r10 = s.gpr[10], r.r11 = s.gpr[11];
  r.r12 = s.gpr[12], r.r13 = s.gpr[13], r.r14 = s.gpr[14], r.r15 = s.gpr[15];
  r.rip = s.rip, r.rflags = s.rflags | 2;
  return r;
}

void special_from_kvm(const kvm_sregs& s, VcpuState& out) {
  out.segments = {from_kvm(s.es), from_kvm(s.cs), from_kvm(s.ss), from_kvm(s.ds), from_kvm(s.fs), from_kvm(s.gs)};
  out.ldtr = from_kvm(s.ldt);
  out.tr = from_kvm(s.tr);
  out.gdtr = {s.gdt.base, s.gdt.limit};
  out.idtr = {s.idt.base, s.idt.limit};
  out.cr0 = s.cr0, out.cr2 = s.cr2, out.cr3 = s.cr3, out.cr4 = s.cr4, out.cr8 = s.cr8;
  out.efer = s.efer;
}

void events_from_kvm(const kvm_vcpu_events& events, VcpuState& out) {
  if (events.exception.injected || events.exception.pending) {
    out.pending_exception = PendingEvent{.vector = events.exception.nr, .error_code = {}, .address = 0};
    if (events.exception.has_error_code) out.pending_exception->error_code = events.exception.error_code;
    if (events.exception.nr == kPageFault) out.pending_exception->address = out.cr2;
  }
  if (events.interrupt.injected && !events.interrupt.soft) out.pending_interrupt = events.interrupt.nr;
  out.nmi_pending = events.nmi.pending != 0 || events.nmi.injected != 0;
  out.nmi_blocked = events.nmi.masked != 0;
  out.interrupt_shadow = events.interrupt.shadow != 0;
}

MpState from_kvm(u32 mp_state) {
  switch (mp_state) {
    case KVM_MP_STATE_HALTED:
      return MpState::kHalted;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
      return MpState::kWaitForSipi;
    default:
      return MpState::kRunnable;
  }
}

u64 msr_of(const VcpuState& state, u32 index, u64 otherwise) {
  const auto found = std::ranges::find(state.msrs, index, &MsrValue::index);
  return found == state.msrs.end() ? otherwise : found->value;
}

}  // namespace

// ---- reading

VcpuState KvmVcpu::state() {
  VcpuState out;
  if (auto got = get_all(out); !got) failure(got.error().message);
  return out;
}

Result<void> KvmVcpu::get_all(VcpuState& out) {
  kvm_regs registers{};
  kvm_sregs sregs{};
  kvm_debugregs debug{};
  kvm_xcrs xcrs{};
  kvm_vcpu_events events{};
  kvm_lapic_state lapic{};
  kvm_mp_state mp{};
  std::vector<std::byte> xsave(sizeof(kvm_xsave));
  BH_TRY(call(KVM_GET_MP_STATE, &mp, "to tell the state"));  // first: what is on its way to the LAPIC arrives by it
  BH_TRY(call(KVM_GET_REGS, &registers, "to tell the registers"));
  BH_TRY(call(KVM_GET_SREGS, &sregs, "to tell the special registers"));
  BH_TRY(call(KVM_GET_DEBUGREGS, &debug, "to tell the debug registers"));
  BH_TRY(call(KVM_GET_XCRS, &xcrs, "to tell XCR0"));
  BH_TRY(call(KVM_GET_XSAVE, xsave.data(), "to tell the vector state"));
  BH_TRY(call(KVM_GET_LAPIC, &lapic, "to tell the LAPIC"));
  BH_TRY(call(KVM_GET_VCPU_EVENTS, &events, "to tell the pending events"));
  gpr_from_kvm(registers, out);
  special_from_kvm(sregs, out);
  for (std::size_t i = 0; i < 4; ++i) out.dr[i] = debug.db[i];
  out.dr[6] = debug.dr6, out.dr[7] = debug.dr7;
  out.xcr0 = xcrs.nr_xcrs > 0 ? xcrs.xcrs[0].value : 1;
  xsave.resize(vm_.xsave_bytes);
  out.xsave = std::move(xsave);
  std::memcpy(out.lapic.data(), lapic.regs, out.lapic.size());
  events_from_kvm(events, out);
  if (const int direct = direct_.load(); direct >= 0 && !out.pending_interrupt && (out.rflags & 1u << 9))
    out.pending_interrupt = static_cast<u8>(direct);
  if (given_ && !out.pending_interrupt) out.pending_interrupt = given_;
  out.mp_state = from_kvm(mp.mp_state);
  if (index_ == 0 && vm_.kvm_abi) {
    kvm_clock_data clock{};
    if (kvm_ioctl(vm_.fd.get(), KVM_GET_CLOCK, &clock) != 0) return fail_errno("KVM refuses to tell the guest's clock");
    out.paravirt_clock_ns = shown_clock_ = clock.clock;
  }
  return get_msrs(out.msrs);
}

Result<void> KvmVcpu::get_msrs(std::vector<MsrValue>& out) {
  MsrList list{vm_.msrs.size()};
  for (std::size_t i = 0; i < vm_.msrs.size(); ++i) list[i].index = vm_.msrs[i];
  const int got = kvm_ioctl(fd_.get(), KVM_GET_MSRS, list.get());
  if (got != static_cast<int>(vm_.msrs.size()))
    return fail("KVM does not tell MSR {:#x} of vCPU {}", vm_.msrs[static_cast<std::size_t>(std::max(0, got))], index_);
  for (std::size_t i = 0; i < vm_.msrs.size(); ++i) {
    out.push_back({list[i].index, list[i].data});
    if (vm_.msrs[i] == kMsrTsc) shown_tsc_ = out.back().value;
  }
  return {};
}

std::vector<u32> KvmVcpu::readable_msrs(std::span<const u32> candidates) {
  std::vector<u32> out;
  for (const u32 index : candidates) {
    MsrList list{1};
    list[0].index = index;
    if (kvm_ioctl(fd_.get(), KVM_GET_MSRS, list.get()) == 1) out.push_back(index);
  }
  return out;
}

const kvm_sregs& KvmVcpu::special() {
  if (!special_) {
    special_.emplace();
    (void)kvm_ioctl(fd_.get(), KVM_GET_SREGS, &*special_);
  }
  return *special_;
}

// ---- writing

// An instruction that waits for its answer is completed first, as it may be: then everything is overwritten. Unless
// this is the same instruction: then its answer is still owed.
Result<void> KvmVcpu::set_state(const VcpuState& state) {
  if (incomplete_) {
    kvm_regs registers{};
    BH_TRY(call(KVM_GET_REGS, &registers, "to tell the registers"));
    if (registers.rip != state.rip) {
      std::atomic_ref{run_->immediate_exit}.store(1);
      for (int i = 0; i < 64 && ::ioctl(fd_.get(), KVM_RUN, 0) == 0; ++i) {
      }
      incomplete_ = false;
      owed_ = Owed::kNothing;
    }
  }
  special_.reset();
  shut_down_ = false;
  direct_.store(-1);
  given_.reset();
  BH_TRY(set_special_registers(state));
  BH_TRY(set_registers(state));
  BH_TRY(set_vector_state(state));
  BH_TRY(set_clock(state));
  BH_TRY(set_msrs(state));
  BH_TRY(set_lapic(state));
  BH_TRY(set_events(state));
  look_halted_ = state.mp_state == MpState::kHalted;
  if (index_ == 0) learn_tsc_offset();
  return {};
}

Result<void> KvmVcpu::set_registers(const VcpuState& state) {
  kvm_regs registers = gpr_to_kvm(state);
  kvm_debugregs debug{};
  for (std::size_t i = 0; i < 4; ++i) debug.db[i] = state.dr[i];
  debug.dr6 = state.dr[6], debug.dr7 = state.dr[7];
  BH_TRY(call(KVM_SET_DEBUGREGS, &debug, "the debug registers"));
  run_->kvm_dirty_regs = 0;
  return call(KVM_SET_REGS, &registers, "the registers");
}

Result<void> KvmVcpu::set_special_registers(const VcpuState& state) {
  if (state.cr8 > 15) return fail("vCPU state: CR8 {:#x} is above 15", state.cr8);
  kvm_sregs s{};
  BH_TRY(call(KVM_GET_SREGS, &s, "to tell the special registers"));
  s.es = to_kvm(state.segments[0]), s.cs = to_kvm(state.segments[1]), s.ss = to_kvm(state.segments[2]);
  s.ds = to_kvm(state.segments[3]), s.fs = to_kvm(state.segments[4]), s.gs = to_kvm(state.segments[5]);
  s.ldt = to_kvm(state.ldtr), s.tr = to_kvm(state.tr);
  s.gdt = {}, s.idt = {};
  s.gdt.base = state.gdtr.base, s.gdt.limit = state.gdtr.limit;
  s.idt.base = state.idtr.base, s.idt.limit = state.idtr.limit;
  s.cr0 = state.cr0, s.cr2 = state.cr2, s.cr3 = state.cr3, s.cr4 = state.cr4, s.cr8 = state.cr8;
  s.efer = state.efer;
  s.apic_base = msr_of(state, kMsrApicBase, s.apic_base);
  std::memset(s.interrupt_bitmap, 0, sizeof s.interrupt_bitmap);
  return call(KVM_SET_SREGS, &s, "the special registers (CR0, CR3, CR4, EFER, segments)");
}

Result<void> KvmVcpu::set_vector_state(const VcpuState& state) {
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = state.xcr0;
  if (vm_.model.has(1, 0, 'c', 26)) BH_TRY(call(KVM_SET_XCRS, &xcrs, "XCR0"));
  if (state.xsave.size() > vm_.xsave_bytes)
    return fail("vCPU state: an XSAVE area of {} bytes is longer than {}", state.xsave.size(), vm_.xsave_bytes);
  if (state.xsave.size() < 576) return {};
  std::vector<std::byte> area(sizeof(kvm_xsave));
  std::memcpy(area.data(), state.xsave.data(), state.xsave.size());
  return call(KVM_SET_XSAVE, area.data(), "the vector state");
}

Result<void> KvmVcpu::set_msr(u32 index, u64 value) {
  MsrList list{1};
  list[0].index = index;
  list[0].data = value;
  if (kvm_ioctl(fd_.get(), KVM_SET_MSRS, list.get()) == 1) return {};
  return fail("vCPU state: MSR {:#x} cannot be set to {:#x} on KVM with this CPU model", index, value);
}

// The clock is the guest's, not a vCPU's: vCPU 0 brings it. One that goes on where it is is not set back.
Result<void> KvmVcpu::set_clock(const VcpuState& state) {
  if (index_ != 0 || !vm_.kvm_abi || state.paravirt_clock_ns == 0) return {};
  kvm_clock_data clock{};
  if (kvm_ioctl(vm_.fd.get(), KVM_GET_CLOCK, &clock) == 0 && clock.clock >= state.paravirt_clock_ns &&
      state.paravirt_clock_ns == shown_clock_)
    return {};
  clock = {};
  clock.clock = state.paravirt_clock_ns;
  if (kvm_ioctl(vm_.fd.get(), KVM_SET_CLOCK, &clock) == 0) return {};
  return fail_errno("KVM refuses the guest's clock");
}

// By its distance from the host's: KVM takes a TSC that is written for one of vCPUs that are being synchronised when it
// is within a second of what another reads, a fresh vCPU's for instance, and changes nothing then. vCPU 0 leads; one
// that is near it follows exactly, whenever it was read and is written. False: this KVM cannot.
bool KvmVcpu::set_tsc(u64 value) {
  const u64 common = vm_.tsc_offset.load(std::memory_order_relaxed);
  u64 offset = value - __rdtsc();
  const u64 second = vm_.model.tsc_hz, ahead = offset - common;
  if (index_ != 0 && (ahead < second || 0 - ahead < second)) offset = common;
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<u64>(&offset);
  return kvm_ioctl(fd_.get(), KVM_SET_DEVICE_ATTR, &attribute) == 0;
}

// A clock that was read by state() and comes back unchanged goes on. What reads the same already is not written: it may
// be read-only.
Result<void> KvmVcpu::set_msrs(const VcpuState& state) {
  std::vector<MsrValue> now;
  const u64 shown = shown_tsc_;
  BH_TRY(get_msrs(now));
  for (const MsrValue& msr : state.msrs) {
    if (msr.index == kMsrApicBase || msr.index == kMsrTscDeadline) continue;  // with the LAPIC
    if (msr.index == kMsrTsc && msr.value == shown) continue;
    if (msr.index == kMsrTsc && set_tsc(msr.value)) continue;
    const auto same = std::ranges::find(now, msr.index, &MsrValue::index);
    if (same != now.end() && same->value == msr.value) continue;
    BH_TRY(set_msr(msr.index, msr.value));
  }
  return {};
}

Result<void> KvmVcpu::set_lapic(const VcpuState& state) {
  kvm_lapic_state lapic{};
  std::memcpy(lapic.regs, state.lapic.data(), state.lapic.size());
  u32 priority = 0;
  std::memcpy(&priority, &lapic.regs[kTaskPriority], 4);
  if (priority >> 4 != state.cr8) {
    priority = static_cast<u32>(state.cr8) << 4;
    std::memcpy(&lapic.regs[kTaskPriority], &priority, 4);
  }
  expect_eois(state);
  BH_TRY(call(KVM_SET_LAPIC, &lapic, "the LAPIC"));
  if (const u64 deadline = msr_of(state, kMsrTscDeadline, 0); deadline != 0) BH_TRY(set_msr(kMsrTscDeadline, deadline));
  return {};
}

// Level-triggered interrupts that are requested or in service came by routes that this partition need not have.
void KvmVcpu::expect_eois(const VcpuState& state) {
  constexpr std::size_t kInService = 0x100, kTrigger = 0x180, kRequested = 0x200;
  const auto word = [&](std::size_t bank, unsigned vector) {
    u32 value = 0;
    std::memcpy(&value, &state.lapic[bank + vector / 32 * 16], 4);
    return value;
  };
  for (unsigned vector = 16; vector < 256; ++vector)
    if (bit(word(kTrigger, vector) & (word(kInService, vector) | word(kRequested, vector)), vector % 32))
      vm_.routes.expect_eoi({0xfee00000 | u64{index_} << 12, vector | 1u << 14 | 1u << 15});
}

Result<void> KvmVcpu::set_events(const VcpuState& state) {
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  if (const auto& event = state.pending_exception) {
    events.exception.injected = 1;
    events.exception.nr = event->vector;
    events.exception.has_error_code = event->error_code.has_value();
    events.exception.error_code = event->error_code.value_or(0);
    if (event->vector == kPageFault && event->address != state.cr2) {
      VcpuState with_address = state;
      with_address.cr2 = event->address;
      BH_TRY(set_special_registers(with_address));
    }
  }
  events.interrupt.injected = state.pending_interrupt.has_value();
  events.interrupt.nr = state.pending_interrupt.value_or(0);
  events.interrupt.shadow = state.interrupt_shadow ? KVM_X86_SHADOW_INT_STI : 0;
  events.nmi.pending = state.nmi_pending;
  events.nmi.masked = state.nmi_blocked;
  BH_TRY(call(KVM_SET_VCPU_EVENTS, &events, "the pending events"));
  kvm_mp_state mp{};
  switch (state.mp_state) {
    case MpState::kHalted:
      mp.mp_state = KVM_MP_STATE_HALTED;
      break;
    case MpState::kRunnable:
      mp.mp_state = KVM_MP_STATE_RUNNABLE;
      break;
    case MpState::kWaitForSipi:
    case MpState::kInitReceived:
      mp.mp_state = KVM_MP_STATE_INIT_RECEIVED;
      break;
  }
  return call(KVM_SET_MP_STATE, &mp, "the state");
}

}  // namespace bulkhead::engine::kvm
