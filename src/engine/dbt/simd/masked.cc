// Memory operands of which only some elements may be touched: a disabled element does not fault, is not read and not
// written.
#include <bit>

#include "engine/dbt/simd/internal.h"

namespace bulkhead::engine::dbt {
namespace {

u64 address_mask(const Insn& insn) { return mask_for_size(insn.address_size); }

// Which elements in memory a mask selects.
u64 needed_elements(const SimdPlan& plan, u64 mask) {
  switch (plan.shape) {
    case MaskShape::kPerElement:
      return mask;
    case MaskShape::kCompress: {
      const int count = std::popcount(mask);
      return count == 64 ? ~u64{0} : (u64{1} << count) - 1;
    }
    case MaskShape::kTuple: {
      u64 needed = 0;
      for (unsigned i = 0; i < plan.mask_bits; ++i)
        if (bit(mask, i)) needed |= u64{1} << (i % plan.element_count);
      return needed;
    }
  }
  return 0;
}

// Calls visit(byte offset, byte count) for every run of adjacent set bits.
template <class Visit>
void for_each_run(u64 elements, unsigned element_size, Visit visit) {
  unsigned first = 0;
  while (elements) {
    const int skip = std::countr_zero(elements);
    first += static_cast<unsigned>(skip);
    elements >>= skip;
    const unsigned count = static_cast<unsigned>(std::countr_one(elements));
    visit(first * element_size, count * element_size);
    if (count >= 64) return;
    elements >>= count;
    first += count;
  }
}

u64 run_linear(const SimdCall& call, u64 offset, unsigned at, unsigned length, Access access) {
  return call.cpu.linear(static_cast<Seg>(call.insn.mem.segment), (offset + at) & address_mask(call.insn), length,
                         access);
}

void store_runs(const SimdCall& call, u64 offset, u64 elements, unsigned element_size, const std::byte* from) {
  for_each_run(elements, element_size, [&](unsigned at, unsigned length) {
    call.cpu.store_bytes(run_linear(call, offset, at, length, Access::kWrite), from + at, length);
  });
}

}  // namespace

u64 unchecked_linear(const SimdCall& call) {
  return call.cpu.s.seg[call.insn.mem.segment].base + call.cpu.effective_address(call.insn);
}

u64 mask_value(const SimdCall& call) {
  const SimdPlan& plan = call.plan;
  const XsaveView view{call.cpu.s.xsave.data()};
  const u64 counted = plan.mask_bits >= 64 ? ~u64{0} : (u64{1} << plan.mask_bits) - 1;
  if (!plan.vector_mask) return view.mask_register(plan.mask_register) & counted;
  std::array<u8, 64> vector;
  view.read_vector(plan.mask_register, vector.data(), 64);
  u64 mask = 0;
  for (unsigned i = 0; i < plan.mask_bits; ++i) mask |= u64{vector[(i + 1u) * plan.element_size - 1u]} >> 7 << i;
  return mask;
}

StepResult execute_masked(const SimdCall& call) {
  Cpu& cpu = call.cpu;
  const SimdPlan& plan = call.plan;
  const u64 offset = cpu.effective_address(call.insn);
  const u64 elements = needed_elements(plan, mask_value(call));
  std::byte* bounce = simd_scratch().bounce.data() + (unchecked_linear(call) & 63);
  check_alignment(call, unchecked_linear(call));
  StubFrame frame;
  if (plan.memory_write) {
    if (plan.probes_all) cpu.probe_write(cpu.linear_of(call.insn, plan.memory_size, Access::kWrite), plan.memory_size);
    // All that can be refused is refused before the first byte is written.
    for_each_run(elements, plan.element_size, [&](unsigned at, unsigned length) {
      cpu.probe_write(run_linear(call, offset, at, length, Access::kWrite), length);
    });
    run_native(call, bounce, true, frame);
    store_runs(call, offset, elements, plan.element_size, bounce);
    commit_held(cpu.s);
    return finish_native(call, frame);
  }
  std::memset(bounce, 0, plan.memory_size);
  for_each_run(elements, plan.element_size, [&](unsigned at, unsigned length) {
    cpu.load_bytes(run_linear(call, offset, at, length, Access::kRead), bounce + at, length);
  });
  run_native(call, bounce, false, frame);
  return finish_native(call, frame);
}

StepResult execute_byte_mask(const SimdCall& call) {
  Cpu& cpu = call.cpu;
  const bool mmx = !call.plan.vector_mask;
  const unsigned size = mmx ? 8 : 16;
  std::byte* bounce = simd_scratch().bounce.data();
  StubFrame frame;
  run_native(call, bounce, true, frame);
  // As an MMX instruction it has set TOP to 0, so that MMn is where STn is.
  XsaveView view{simd_scratch().state.data()};
  std::array<u8, 16> mask{};
  if (mmx) {
    const u64 value = view.mmx(call.plan.mask_register);
    std::memcpy(mask.data(), &value, 8);
  } else {
    XsaveView{cpu.s.xsave.data()}.read_vector(call.plan.mask_register, mask.data(), 16);
  }
  u64 elements = 0;
  for (unsigned i = 0; i < size; ++i) elements |= u64{mask[i]} >> 7 << i;
  // The change from x87 to MMX registers happens even if the store then faults.
  if (mmx) commit_held(cpu.s);
  const u64 offset = cpu.s.gpr[kRdi] & address_mask(call.insn);
  for_each_run(elements, 1, [&](unsigned at, unsigned length) {
    cpu.probe_write(run_linear(call, offset, at, length, Access::kWrite), length);
  });
  store_runs(call, offset, elements, 1, bounce);
  commit_held(cpu.s);
  return finish_native(call, frame);
}

}  // namespace bulkhead::engine::dbt
