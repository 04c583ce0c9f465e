// Gathers and scatters, element by element: a fault leaves the elements before it done and their mask bits clear
// [SDM-2C VPGATHERDD].
#include "engine/dbt/simd/internal.h"

namespace bulkhead::engine::dbt {
namespace {

void refuse_overlap(const SimdCall& call) {
  const SimdPlan& plan = call.plan;
  const u8 index = call.insn.mem.index;
  const bool scatter = plan.handler == SimdHandler::kScatter;
  const bool bad = plan.vector_mask ? plan.data_register == index || plan.data_register == plan.mask_register ||
                                          index == plan.mask_register
                                    : plan.mask_register == 0 || (!scatter && plan.data_register == index);
  if (bad) call.cpu.raise(kUd);
}

u64 element_linear(const SimdCall& call, unsigned i, Access access) {
  const SimdPlan& plan = call.plan;
  const MemoryRef& mem = call.insn.mem;
  u64 index = 0;
  std::memcpy(&index, simd_scratch().index.data() + i * plan.index_size, plan.index_size);
  index = sign_extend(index, plan.index_size);
  const u64 base = mem.base == kNoRegister ? 0 : call.cpu.s.gpr[mem.base];
  const u64 offset = (base + index * mem.scale + static_cast<u64>(mem.disp)) & mask_for_size(call.insn.address_size);
  return call.cpu.linear(static_cast<Seg>(mem.segment), offset, plan.element_size, access);
}

// Clears the mask bits of `done` elements; all of the register when every element is done.
void clear_mask(const SimdCall& call, u64 done, bool all) {
  const SimdPlan& plan = call.plan;
  XsaveView view{call.cpu.s.xsave.data()};
  if (!plan.vector_mask) {
    view.set_mask_register(plan.mask_register, all ? 0 : view.mask_register(plan.mask_register) & ~done);
    return;
  }
  std::array<std::byte, 64> value{};
  if (all) return view.write_vector(plan.mask_register, value.data(), 16);
  view.read_vector(plan.mask_register, value.data(), 64);
  for (unsigned i = 0; i < plan.element_count; ++i)
    if (bit(done, i)) std::memset(value.data() + i * plan.element_size, 0, plan.element_size);
  view.write_vector(plan.mask_register, value.data(), 64);
}

[[noreturn]] void escape_again(Cpu& cpu) { longjmp(cpu.escape, 1); }

void prepare(const SimdCall& call) {
  SimdScratch& scratch = simd_scratch();
  const XsaveView view{call.cpu.s.xsave.data()};
  view.read_vector(call.insn.mem.index, scratch.index.data(), 64);
  view.read_vector(call.plan.data_register, scratch.vector.data(), 64);
  scratch.done = 0;
}

void write_data(const SimdCall& call, unsigned size) {
  XsaveView{call.cpu.s.xsave.data()}.write_vector(call.plan.data_register, simd_scratch().vector.data(), size);
}

}  // namespace

StepResult execute_gather(const SimdCall& call) {
  Cpu& cpu = call.cpu;
  const SimdPlan& plan = call.plan;
  refuse_overlap(call);
  prepare(call);
  SimdScratch& scratch = simd_scratch();
  const u64 mask = mask_value(call);
  BH_GUARD(cpu) {
    for (unsigned i = 0; i < plan.element_count; ++i) {
      if (bit(mask, i)) {
        const u64 value = cpu.load(element_linear(call, i, Access::kRead), plan.element_size);
        std::memcpy(scratch.vector.data() + i * plan.element_size, &value, plan.element_size);
      }
      scratch.done |= u64{1} << i;  // a disabled one too: its mask element is cleared like the others
    }
  }
  if (cpu.escape_kind == Escape::kFault) {
    if (scratch.done) write_data(call, 64);
    clear_mask(call, scratch.done, false);
    escape_again(cpu);
  }
  // For a device access the whole instruction runs again with what has been answered; nothing may change before.
  if (cpu.escape_kind == Escape::kExit) escape_again(cpu);
  write_data(call, plan.element_count * plan.element_size);
  clear_mask(call, 0, true);
  return advance(call);
}

StepResult execute_scatter(const SimdCall& call) {
  Cpu& cpu = call.cpu;
  const SimdPlan& plan = call.plan;
  refuse_overlap(call);
  prepare(call);
  SimdScratch& scratch = simd_scratch();
  const u64 mask = mask_value(call);
  BH_GUARD(cpu) {
    for (unsigned i = 0; i < plan.element_count; ++i) {
      if (!bit(mask, i)) continue;
      u64 value = 0;
      std::memcpy(&value, scratch.vector.data() + i * plan.element_size, plan.element_size);
      cpu.store(element_linear(call, i, Access::kWrite), plan.element_size, value);
      scratch.done |= u64{1} << i;
    }
  }
  if (cpu.escape_kind == Escape::kFault) {
    clear_mask(call, scratch.done, false);
    escape_again(cpu);
  }
  if (cpu.escape_kind == Escape::kExit) escape_again(cpu);
  clear_mask(call, 0, true);
  return advance(call);
}

}  // namespace bulkhead::engine::dbt
