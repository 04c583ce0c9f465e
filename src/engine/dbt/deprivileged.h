// A vCPU as the handler of a guest without privilege sees it. On the vCPU's thread, between instructions.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

class DbtVcpu;

class DbtDeprivilegedCpu final : public DeprivilegedCpu {
 public:
  // Ring 3 in 64-bit mode with paging on and flat segments; everything else is the guest's handler's to set.
  DbtDeprivilegedCpu(Cpu& cpu, std::span<const std::unique_ptr<DbtVcpu>> vcpus);

  unsigned index() const override { return cpu_.index; }
  std::array<u64, 16>& gpr() override { return cpu_.s.gpr; }
  u64& rip() override { return cpu_.s.rip; }
  u64 rflags() const override { return cpu_.s.rflags; }
  void set_rflags(u64 value) override;
  GuestMode mode() const override { return cpu_.guest_mode; }
  void set_mode(GuestMode mode) override;
  void set_roots(u64 kernel, u64 user) override;
  u64 root(GuestMode mode) const override { return mode == GuestMode::kKernel ? cpu_.s.cr3 : cpu_.user_root; }
  void flush_tlb(bool kernel_half_too) override { cpu_.flush_tlb(kernel_half_too); }
  void flush_page(u64 linear) override { cpu_.flush_tlb_page(linear); }
  void forget_entry(unsigned number, u64 gpa_page) override { cpu_.forget_entry(number, gpa_page); }
  void flush_others(u64 mask) override;
  bool read(u64 linear, std::span<std::byte> out) override;
  bool write(u64 linear, std::span<const std::byte> in) override;
  std::optional<u64> translate(u64 linear, bool write) override;
  unsigned read_code(std::span<std::byte, 16> out) override;
  bool step_into_copy(u64 linear, std::byte* copy) override;
  bool in_64bit_code() const override { return cpu_.code_size() == CodeSize::k64; }
  u16 selector(Segment segment) const override { return cpu_.s.seg[segment].selector; }
  u64 base(Segment segment) const override { return cpu_.s.seg[segment].base; }
  void set_base(Segment segment, u64 base) override { cpu_.s.seg[segment].base = base; }
  u64& hidden_gs_base() override { return cpu_.s.kernel_gs_base; }
  bool load_segment(Segment segment, u16 selector) override;
  bool load_code_and_stack(u16 cs, u16 ss) override;
  void set_flat_code_and_stack(u16 cs, u16 ss) override { cpu_.set_flat_code_and_stack(cs, ss); }
  void set_descriptor_table(bool local, u64 base, u32 limit) override;
  u64 debug_register(unsigned index) const override { return cpu_.s.dr[index]; }
  void set_debug_register(unsigned index, u64 value) override;
  bool task_switched() const override { return cpu_.s.cr0 & kCr0Ts; }
  void set_task_switched(bool set) override;
  u64 cr4() const override { return cpu_.s.cr4; }
  void set_cr4(u64 value) override;
  bool set_xcr0(u64 value) override { return cpu_.try_set_xcr0(value); }
  bool read_msr(u32 index, u64& value) override { return cpu_.try_read_msr(index, value); }
  bool write_msr(u32 index, u64 value) override { return cpu_.try_write_msr(index, value); }
  void cpuid() override { cpu_.cpuid(); }
  u64 tsc() const override { return cpu_.read_tsc(); }
  void set_tsc_aux(u64 value) override { cpu_.s.tsc_aux = value; }
  bool halted() const override { return cpu_.s.halted; }
  void set_halted(bool halted) override { cpu_.s.halted = halted; }
  void reset_vector_state() override;
  void set_vector_state(std::span<const std::byte, 512> fxsave) override;

 private:
  Cpu& cpu_;
  std::span<const std::unique_ptr<DbtVcpu>> vcpus_;
};

}  // namespace bulkhead::engine::dbt
