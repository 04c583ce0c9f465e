// A deprivileged vCPU that runs nothing: registers to look at, and memory through the guest's real page tables.
#pragma once
#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

#include "abi/xen/pv/entry.h"
#include "base/assert.h"
#include "base/bits.h"
#include "engine/deprivileged.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi::xen::pv::testing {

class FakeCpu final : public engine::DeprivilegedCpu {
 public:
  FakeCpu(const GuestMemory& memory, unsigned index) : memory_{memory}, index_{index} {}

  unsigned index() const override { return index_; }
  std::array<u64, 16>& gpr() override { return gpr_; }
  u64& rip() override { return rip_; }
  u64 rflags() const override { return rflags_; }
  void set_rflags(u64 value) override { rflags_ = (value & ~u64{0x27000}) | 0x202; }
  engine::GuestMode mode() const override { return mode_; }
  void set_mode(engine::GuestMode mode) override { mode_ = mode; }
  void set_roots(u64 kernel, u64 user) override { kernel_root = kernel, user_root = user; }
  u64 root(engine::GuestMode mode) const override {
    return mode == engine::GuestMode::kKernel ? kernel_root : user_root;
  }
  void flush_tlb(bool kernel_half_too) override { ++(kernel_half_too ? full_flushes : half_flushes); }
  void flush_page(u64 linear) override { flushed_pages.push_back(linear); }
  void forget_entry(unsigned number, u64 gpa_page) override { forgotten.push_back(gpa_page | number); }
  void flush_others(u64 mask) override { flushed_others.push_back(mask); }

  // As engines do: only for the kernel.
  bool read(u64 linear, std::span<std::byte> out) override {
    BH_ASSERT(mode_ == engine::GuestMode::kKernel);
    return each_page(linear, out.size(), false,
                     [&](std::byte* at, u64 done, u64 n) { std::memcpy(&out[done], at, n); });
  }
  bool write(u64 linear, std::span<const std::byte> in) override {
    BH_ASSERT(mode_ == engine::GuestMode::kKernel);
    return each_page(linear, in.size(), true, [&](std::byte* at, u64 done, u64 n) { std::memcpy(at, &in[done], n); });
  }
  std::optional<u64> translate(u64 linear, bool write) override {
    if (static_cast<u64>(static_cast<i64>(linear << 16) >> 16) != linear) return std::nullopt;
    u64 frame = kernel_root >> 12;
    for (unsigned level = 4; level > 0; --level) {
      auto* const table = reinterpret_cast<u64*>(memory_.host(Gpa{frame << 12}, kPageSize));
      if (table == nullptr) return std::nullopt;
      const u64 entry = table[index_at(level, linear)];
      if (!(entry & kPresent) || !(entry & kUser) || (write && !(entry & kWritable))) return std::nullopt;
      frame = frame_of_entry(entry);
    }
    return frame << 12 | (linear & 0xfff);
  }
  unsigned read_code(std::span<std::byte, 16> out) override {
    std::ranges::copy(code, out.begin());
    return static_cast<unsigned>(code.size());
  }
  bool step_into_copy(u64, std::byte* copy) override {
    if (!step) return false;
    step(reinterpret_cast<u64*>(copy));
    rip_ += 3;
    return true;
  }

  bool in_64bit_code() const override { return wide; }
  u16 selector(Segment segment) const override { return selectors[segment]; }
  u64 base(Segment segment) const override { return bases[segment]; }
  void set_base(Segment segment, u64 base) override { bases[segment] = base; }
  u64& hidden_gs_base() override { return hidden_gs; }
  bool load_segment(Segment segment, u16 selector) override {
    if (std::ranges::count(bad_selectors, selector) != 0) return false;
    selectors[segment] = selector;
    bases[segment] = 0;
    return true;
  }
  bool load_code_and_stack(u16 cs, u16 ss) override {
    if (std::ranges::count(bad_selectors, cs) + std::ranges::count(bad_selectors, ss) != 0) return false;
    set_flat_code_and_stack(cs, ss);
    return true;
  }
  void set_flat_code_and_stack(u16 cs, u16 ss) override { selectors[kCs] = cs, selectors[kSs] = ss; }
  void set_descriptor_table(bool local, u64 base, u32 limit) override { tables[local] = {base, limit}; }

  u64 debug_register(unsigned index) const override { return debug[index]; }
  void set_debug_register(unsigned index, u64 value) override { debug[index] = value; }
  bool task_switched() const override { return ts; }
  void set_task_switched(bool set) override { ts = set; }
  u64 cr4() const override { return cr4_; }
  void set_cr4(u64 value) override { cr4_ = value; }
  bool set_xcr0(u64 value) override { return value & 1; }
  bool read_msr(u32 index, u64& value) override {
    if (!msrs.contains(index)) return false;
    value = msrs[index];
    return true;
  }
  bool write_msr(u32 index, u64 value) override { return msrs.contains(index) && (msrs[index] = value, true); }
  void cpuid() override { gpr_[kRax] = 0xc001; }
  u64 tsc() const override { return 0x1122334455667788; }
  void set_tsc_aux(u64 value) override { tsc_aux = value; }
  bool halted() const override { return halted_; }
  void set_halted(bool halted) override { halted_ = halted; }
  void reset_vector_state() override { ++vector_resets; }
  void set_vector_state(std::span<const std::byte, 512>) override { ++vector_loads; }

  u64 kernel_root = 0, user_root = 0;
  unsigned full_flushes = 0, half_flushes = 0, vector_resets = 0, vector_loads = 0;
  std::vector<u64> flushed_pages, flushed_others;
  std::vector<u64> forgotten;           // pages and the numbers of their entries
  std::vector<std::byte> code;          // at RIP
  std::function<void(u64* copy)> step;  // the instruction that step_into_copy() runs; none: it cannot
  std::vector<u16> bad_selectors;
  std::array<u16, 6> selectors{};
  std::array<u64, 6> bases{};
  std::array<u64, 8> debug{};
  std::array<std::pair<u64, u32>, 2> tables{};
  std::map<u32, u64> msrs;
  u64 hidden_gs = 0, tsc_aux = 0;
  bool wide = true, ts = false;

 private:
  template <class Use>
  bool each_page(u64 linear, u64 size, bool write, Use use) {
    for (u64 done = 0; done < size;) {
      const u64 at = linear + done, n = std::min(size - done, kPageSize - (at & 0xfff));
      const auto machine = translate(at, write);
      if (!machine) return false;
      use(memory_.host(Gpa{*machine}, n), done, n);
      done += n;
    }
    return true;
  }

  const GuestMemory& memory_;
  const unsigned index_;
  std::array<u64, 16> gpr_{};
  u64 rip_ = 0, rflags_ = 0x202, cr4_ = 0x20;
  engine::GuestMode mode_ = engine::GuestMode::kKernel;
  bool halted_ = true;
};

}  // namespace bulkhead::abi::xen::pv::testing
