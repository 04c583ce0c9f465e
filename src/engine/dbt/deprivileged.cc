#include "engine/dbt/deprivileged.h"

#include <algorithm>
#include <cstring>

#include "engine/dbt/interp/interp.h"
#include "engine/dbt/simd/xstate.h"
#include "engine/dbt/vcpu.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kFixedFlags = 2 | kIf, kForbiddenFlags = kIopl | kNt | kVm;

}  // namespace

DbtDeprivilegedCpu::DbtDeprivilegedCpu(Cpu& cpu, std::span<const std::unique_ptr<DbtVcpu>> vcpus)
    : cpu_{cpu}, vcpus_{vcpus} {
  CpuState& s = cpu_.s;
  u64 no_lapic = 0;
  cpu_.lapic->write_msr(0x1b, no_lapic);  // IA32_APIC_BASE: off, so that its page is ordinary memory
  cpu_.lapic->set_waiting_for_sipi(false);
  cpu_.deprivileged = true;
  s.cr0 = kCr0Pe | kCr0Mp | kCr0Et | kCr0Ne | kCr0Wp | kCr0Am | kCr0Pg;
  s.cr4 = cpu_.features.cr4_allowed & (kCr4Pae | kCr4Pge | kCr4De | kCr4Osxsave | u64{0x600});
  s.efer = (kEferSce | kEferLme | kEferLma | kEferNxe) & (cpu_.features.efer_allowed | kEferLma);
  s.rflags = kFixedFlags;
  s.dr[6] = 0xffff0ff0;
  s.dr[7] = 0x400;
  for (Segment segment : {kEs, kDs, kFs, kGs}) cpu_.try_load_segment(static_cast<Seg>(segment), 0);
  cpu_.set_flat_code_and_stack(0xe033, 0xe02b);  // [xen/arch-x86/xen-x86_64.h FLAT_RING3_CS64]
  s.halted = true;
  cpu_.update_cpl(3);
  cpu_.mode_changed();
  cpu_.flush_tlb(true);
}

void DbtDeprivilegedCpu::set_rflags(u64 value) { cpu_.write_rflags((value & ~kForbiddenFlags) | kFixedFlags, ~u64{0}); }

void DbtDeprivilegedCpu::set_mode(GuestMode mode) {
  cpu_.guest_mode = mode;
  cpu_.update_cpl(3);
}

void DbtDeprivilegedCpu::set_roots(u64 kernel, u64 user) {
  cpu_.s.cr3 = kernel;
  cpu_.user_root = user;
}

// They look before their next guest instruction; those that are outside of the guest meanwhile need not be waited for.
void DbtDeprivilegedCpu::flush_others(u64 mask) {
  for (unsigned i = 0; i < vcpus_.size(); ++i)
    if (i != cpu_.index && bit(mask, i)) vcpus_[i]->request_flush();
  for (unsigned i = 0; i < vcpus_.size(); ++i)
    if (i != cpu_.index && bit(mask, i)) vcpus_[i]->wait_for_flush();
}

bool DbtDeprivilegedCpu::read(u64 linear, std::span<std::byte> out) {
  BH_ASSERT(cpu_.guest_mode == GuestMode::kKernel);
  return cpu_.try_copy_in(linear, out);
}
bool DbtDeprivilegedCpu::write(u64 linear, std::span<const std::byte> in) {
  BH_ASSERT(cpu_.guest_mode == GuestMode::kKernel);
  return cpu_.try_copy_out(linear, in);
}

std::optional<u64> DbtDeprivilegedCpu::translate(u64 linear, bool write) {
  const Cpu::Translation t = cpu_.walk(linear, write ? Access::kWrite : Access::kRead, false, true);
  if (!t.ok) return std::nullopt;
  return t.gpa;
}

unsigned DbtDeprivilegedCpu::read_code(std::span<std::byte, 16> out) {
  volatile unsigned have = 0;
  BH_GUARD(cpu_) { have = cpu_.fetch(cpu_.s.rip, reinterpret_cast<u8*>(out.data())); }
  return have;
}

bool DbtDeprivilegedCpu::step_into_copy(u64 linear, std::byte* copy) {
  const u64 rip = cpu_.s.rip;
  const std::array<u64, 16> gpr = cpu_.s.gpr;
  const u64 flags = cpu_.s.rflags;
  cpu_.flush_tlb_page(linear);
  cpu_.redirect_linear = linear;
  cpu_.redirect_host = copy;
  const StepResult result = step(cpu_);
  cpu_.redirect_linear = kNoTag;
  cpu_.instruction_done();
  cpu_.spill_fpu();
  if (result == StepResult::kNext || result == StepResult::kBranch) return true;
  cpu_.s.rip = rip;
  cpu_.s.gpr = gpr;
  cpu_.s.rflags = flags;
  cpu_.s.halted = false;
  return false;
}

bool DbtDeprivilegedCpu::load_segment(Segment segment, u16 selector) {
  return cpu_.try_load_segment(static_cast<Seg>(segment), selector);
}

bool DbtDeprivilegedCpu::load_code_and_stack(u16 cs, u16 ss) { return cpu_.try_load_code_and_stack(cs, ss); }

void DbtDeprivilegedCpu::set_descriptor_table(bool local, u64 base, u32 limit) {
  if (!local) {
    cpu_.s.gdtr = {base, limit};
    return;
  }
  cpu_.s.ldtr = {};
  cpu_.s.ldtr.attributes = static_cast<u16>(limit == 0 ? 1u << 12 : 0x82u);
  cpu_.s.ldtr.base = base;
  cpu_.s.ldtr.limit = limit;
}

void DbtDeprivilegedCpu::set_debug_register(unsigned index, u64 value) {
  cpu_.s.dr[index] = value;
  const bool watched = index != 6;
  cpu_.mode_changed();
  if (watched) cpu_.flush_tlb(true);  // pages with data breakpoints have no entries
}

void DbtDeprivilegedCpu::set_task_switched(bool set) {
  cpu_.s.cr0 = set ? cpu_.s.cr0 | kCr0Ts : cpu_.s.cr0 & ~u64{kCr0Ts};
}

void DbtDeprivilegedCpu::set_cr4(u64 value) {
  cpu_.s.cr4 = value & cpu_.features.cr4_allowed;
  cpu_.mode_changed();
}

void DbtDeprivilegedCpu::reset_vector_state() {
  cpu_.spill_fpu();
  cpu_.s.xsave = {};
  cpu_.s.xsave[0] = std::byte{0x7f};
  cpu_.s.xsave[1] = std::byte{0x03};
  cpu_.s.xsave[24] = std::byte{0x80};
  cpu_.s.xsave[25] = std::byte{0x1f};
}

void DbtDeprivilegedCpu::set_vector_state(std::span<const std::byte, 512> fxsave) {
  reset_vector_state();
  std::memcpy(cpu_.s.xsave.data(), fxsave.data(), 416);
  // A reserved bit in MXCSR would fault on the host when the image is loaded.
  cpu_.s.xsave[26] = cpu_.s.xsave[27] = std::byte{0};
  cpu_.s.xsave[512] = std::byte{3};  // XSTATE_BV: x87 and SSE
}

}  // namespace bulkhead::engine::dbt
