// One x87 or vector instruction: checks, operands, the host's unit, commit.
#include <Zydis/Mnemonic.h>

#include "base/assert.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/simd/features.h"
#include "engine/dbt/simd/internal.h"
#include "engine/dbt/simd/simd.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kCr0Mp = 1u << 1, kCr0Em = 1u << 2, kCr0Ts = 1u << 3;
constexpr u64 kCr4Osfxsr = 1u << 9, kCr4Osxmmexcpt = 1u << 10, kCr4Osxsave = 1u << 18;

bool is_simd_without_register(u16 mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_EMMS:
    case ZYDIS_MNEMONIC_FEMMS:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
    // From memory to a general register, through the vector unit.
    case ZYDIS_MNEMONIC_CVTSS2SI:
    case ZYDIS_MNEMONIC_CVTTSS2SI:
    case ZYDIS_MNEMONIC_CVTSD2SI:
    case ZYDIS_MNEMONIC_CVTTSD2SI:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VCVTSS2USI:
    case ZYDIS_MNEMONIC_VCVTTSS2USI:
    case ZYDIS_MNEMONIC_VCVTSD2USI:
    case ZYDIS_MNEMONIC_VCVTTSD2USI:
    case ZYDIS_MNEMONIC_VCVTSH2SI:
    case ZYDIS_MNEMONIC_VCVTTSH2SI:
    case ZYDIS_MNEMONIC_VCVTSH2USI:
    case ZYDIS_MNEMONIC_VCVTTSH2USI:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
      return true;
    default:
      return false;
  }
}

u64 model_features(Cpu& cpu) {
  if (cpu.simd_features == 0) [[unlikely]]
    cpu.simd_features = features_of_model(cpu.shared.cpu_model);
  return cpu.simd_features;
}

void check_enabled(Cpu& cpu, const SimdPlan& plan) {
  const CpuState& s = cpu.s;
  const auto undefined_unless = [&](bool enabled) {
    if (!enabled) cpu.raise(kUd);
  };
  const bool ts = s.cr0 & kCr0Ts, em = s.cr0 & kCr0Em;
  undefined_unless(plan.valid && (plan.features & ~model_features(cpu)) == 0);
  bool not_available = ts;
  switch (plan.unit) {
    case SimdUnit::kX87:
      not_available = ts || em;
      break;
    case SimdUnit::kWait:
      not_available = ts && (s.cr0 & kCr0Mp);
      break;
    case SimdUnit::kFxsave:
      not_available = ts || em;
      break;
    case SimdUnit::kMmx:
      undefined_unless(!em);
      break;
    case SimdUnit::kSse:
      undefined_unless(!em && (s.cr4 & kCr4Osfxsr));
      break;
    case SimdUnit::kVex:
      undefined_unless(cpu.protected_mode() && !cpu.v8086() && (s.cr4 & kCr4Osxsave) && (s.xcr0 & 6) == 6);
      break;
    case SimdUnit::kEvex:
      undefined_unless(cpu.protected_mode() && !cpu.v8086() && (s.cr4 & kCr4Osxsave) && (s.xcr0 & 0xe6) == 0xe6);
      break;
    case SimdUnit::kXsave:
      undefined_unless(s.cr4 & kCr4Osxsave);
      break;
  }
  if (not_available) cpu.raise(kNm);
}

u64 usable_components(const Cpu& cpu) { return host_xstate().xcr0 & (cpu.shared.cpu_model.xcr0_mask | kXX87 | kXSse); }

// A host exception of the stub, as the guest sees it.
[[noreturn]] void raise_native(Cpu& cpu, i64 vector) {
  switch (vector) {
    case kXm:
      cpu.raise((cpu.s.cr4 & kCr4Osxmmexcpt) ? kXm : kUd);
    case kMf:
      cpu.raise(kMf);
    case kNm:
      cpu.raise(kNm);
    case kAcFault:
      cpu.raise(kAcFault, 0);
    case kGp:
    case kSsFault:
      cpu.raise(kGp, 0);
    default:
      cpu.raise(kUd);
  }
}

// FXSAVE and FXRSTOR outside 64-bit mode leave XMM8..15 and their room in memory alone.
constexpr u16 kFxsaveBytes = 416, kFxsaveBytesNarrow = 288;
void keep_high_xmm(const Cpu& cpu, std::byte* image) {
  XsaveView view{const_cast<std::byte*>(cpu.s.xsave.data())};
  for (unsigned n = 8; n < 16; ++n) view.read_vector(n, image + 160 + 16 * n, 16);
}

// An earlier instruction's, which this one reports before it looks at its operand.
bool x87_exception_pending(CpuState& s) {
  const XsaveView view{s.xsave.data()};
  if (!(view.xstate_bv() & kXX87)) return false;
  u16 control, status;
  std::memcpy(&control, s.xsave.data(), 2);
  std::memcpy(&status, s.xsave.data() + 2, 2);
  return (status & ~control & 0x3f) != 0;
}

// An x87 store that ends in an unmasked exception may leave memory alone.
constexpr int kUnwritten = 0xa5;
bool stored(const SimdPlan& plan, const std::byte* bounce) {
  constexpr u8 kErrorSummary = 0x80;
  if (plan.unit != SimdUnit::kX87 || !(static_cast<u8>(simd_scratch().state[2]) & kErrorSummary)) return true;
  for (unsigned i = 0; i < plan.memory_size; ++i)
    if (bounce[i] != std::byte{kUnwritten}) return true;
  return false;
}

StepResult execute_native(const SimdCall& call) {
  Cpu& cpu = call.cpu;
  const SimdPlan& plan = call.plan;
  StubFrame frame;
  if (plan.memory_size == 0) {
    run_native(call, nullptr, false, frame);
    return finish_native(call, frame);
  }
  if (plan.waits && x87_exception_pending(cpu.s)) cpu.raise(kMf);
  // Vector operands are found misaligned before they are found outside the segment, FXSAVE areas behind.
  if (plan.unit != SimdUnit::kFxsave) check_alignment(call, unchecked_linear(call));
  const u64 linear = cpu.linear_of(call.insn, plan.memory_size, plan.memory_write ? Access::kWrite : Access::kRead);
  if (plan.unit == SimdUnit::kFxsave) check_alignment(call, linear);
  std::byte* bounce = simd_scratch().bounce.data() + (linear & 63);
  const bool narrow_fx = plan.unit == SimdUnit::kFxsave && plan.mode != CodeSize::k64;
  if (plan.memory_read) cpu.load_bytes(linear, bounce, plan.memory_size);
  if (plan.memory_write) cpu.probe_write(linear, plan.memory_size);
  if (!plan.memory_read && plan.unit == SimdUnit::kX87) std::memset(bounce, kUnwritten, plan.memory_size);
  if (plan.memory_read && narrow_fx) keep_high_xmm(cpu, bounce);
  run_native(call, bounce, plan.memory_write, frame);
  if (plan.memory_write) {
    const unsigned size = plan.unit != SimdUnit::kFxsave ? plan.memory_size
                          : narrow_fx                    ? kFxsaveBytesNarrow
                                                         : kFxsaveBytes;
    if (stored(plan, bounce)) cpu.store_bytes(linear, bounce, size);
    commit_held(cpu.s);
  }
  return finish_native(call, frame);
}

void hide_host_pointers(const SimdCall& call, const StubFrame& frame) {
  XsaveView view{call.cpu.s.xsave.data()};
  if (view.fip() == frame.insn_address) view.set_fip(call.cpu.s.rip);
  const u64 bounce = reinterpret_cast<u64>(simd_scratch().bounce.data());
  if (view.fdp() - bounce < sizeof(SimdScratch::bounce)) view.set_fdp(call.cpu.effective_address(call.insn));
}

}  // namespace

SimdScratch& simd_scratch() {
  static thread_local SimdScratch scratch;
  return scratch;
}

namespace {
void start_frame(const SimdCall& call, void* memory, bool hold, StubFrame& frame) {
  Cpu& cpu = call.cpu;
  u64* const in[] = {&frame.rax, &frame.rcx, &frame.rdx};
  for (unsigned i = 0; i < 3; ++i)
    if (call.plan.gpr_in[i] != kNoSlot) *in[i] = cpu.s.gpr[call.plan.gpr_in[i]];
  frame.flags = (cpu.s.rflags & kArithmeticFlags) | 2;
  frame.memory = memory;
  frame.state_in = cpu.s.xsave.data();
  frame.state_out = hold ? simd_scratch().state.data() : cpu.s.xsave.data();
  frame.components = usable_components(cpu);
}
}  // namespace

void check_alignment(const SimdCall& call, u64 linear) {
  constexpr u32 kMisalignedMode = 1u << 17;  // MXCSR.MM [AMD64-1 "Misaligned Access Mode"]
  const SimdPlan& plan = call.plan;
  if (plan.alignment == 0 || (linear & (plan.alignment - 1u)) == 0) return;
  if (XsaveView{call.cpu.s.xsave.data()}.mxcsr() & kMisalignedMode) return;
  if (plan.alignment_checked == 0) {  // ask the host, with nothing committed
    StubFrame frame;
    start_frame(call, simd_scratch().bounce.data() + (linear & 63), true, frame);
    run_stub(plan, call.slot, frame);
    plan.alignment_checked = frame.fault == kGp ? 1 : 2;
  }
  if (plan.alignment_checked == 1) call.cpu.raise(kGp, 0);
}

void run_native(const SimdCall& call, void* memory, bool hold, StubFrame& frame) {
  Cpu& cpu = call.cpu;
  start_frame(call, memory, hold, frame);
  run_stub(call.plan, call.slot, frame);
  if (frame.fault < 0) [[likely]]
    return;
  if (hold) commit_held(cpu.s);
  raise_native(cpu, frame.fault);
}

void commit_held(CpuState& state) {
  const SimdScratch& scratch = simd_scratch();
  std::memcpy(state.xsave.data(), scratch.state.data(), kLegacySize);
  std::memcpy(state.xsave.data() + kLegacySize, scratch.state.data() + kLegacySize, 8);
}

StepResult finish_native(const SimdCall& call, const StubFrame& frame) {
  CpuState& s = call.cpu.s;
  const u64 out[] = {frame.rax, frame.rcx, frame.rdx};
  for (unsigned i = 0; i < 3; ++i)
    if (call.plan.gpr_out[i] != kNoSlot) s.gpr[call.plan.gpr_out[i]] = out[i];
  if (call.plan.writes_flags) s.rflags = (s.rflags & ~kArithmeticFlags) | (frame.flags & kArithmeticFlags);
  if (call.plan.x87_pointers) hide_host_pointers(call, frame);
  return advance(call);
}

StepResult advance(const SimdCall& call) {
  const u64 next = call.cpu.s.rip + call.insn.length;
  call.cpu.s.rip = call.insn.mode == CodeSize::k64   ? next
                   : call.insn.mode == CodeSize::k32 ? next & 0xffffffff
                                                     : next & 0xffff;
  return StepResult::kNext;
}

bool is_simd(const Insn& insn) {
  for (unsigned i = 0; i < insn.operand_count; ++i)
    if (insn.operands[i].kind == OperandKind::kRegister && is_vector_class(insn.operands[i].reg_class)) return true;
  const bool x87_opcode = insn.encoding == 0 && insn.opcode_map == 0 && (insn.opcode & 0xf8) == 0xd8;
  return x87_opcode || is_simd_without_register(insn.mnemonic);
}

void check_simd_enabled(Cpu& cpu, const Insn& insn) { check_enabled(cpu, find_plan(insn).plan); }

StepResult execute_simd(Cpu& cpu, const Insn& insn) {
  cpu.spill_fpu();
  const PlanSlot found = find_plan(insn);
  const SimdCall call{cpu, insn, found.plan, found.slot};
  check_enabled(cpu, found.plan);
  switch (found.plan.handler) {
    case SimdHandler::kNative:
      return execute_native(call);
    case SimdHandler::kMasked:
      return execute_masked(call);
    case SimdHandler::kByteMask:
      return execute_byte_mask(call);
    case SimdHandler::kGather:
      return execute_gather(call);
    case SimdHandler::kScatter:
      return execute_scatter(call);
    case SimdHandler::kXsaveFamily:
      return execute_xsave_family(call);
  }
  return StepResult::kNext;
}

}  // namespace bulkhead::engine::dbt
