// One vCPU of the built-in engine on 16 MiB of RAM, in a known mode, for tests of instructions.
//
// Identity mapped, with these exceptions in long mode: kShared lies at guest-physical 0x600000, so that a test can have
// the same bytes at the same address in the host; 0x400000..0x5fffff is mapped by 4 KiB pages that a test may change.
// Every exception goes to a handler at kHandlers + 16 * vector (HLT): after one, `fault_vector()` says which.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/cpu_model.h"
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/interp/interp.h"

namespace bulkhead::engine::dbt {

class CpuFixture {
 public:
  static constexpr u64 kCode = 0x400000, kData = 0x500000, kStack = 0x580000, kHandlers = 0x8000, kShared = 0x30000000;
  static constexpr u16 kCode64 = 0x08, kData32 = 0x10, kCode32 = 0x18, kUserData = 0x23, kUserCode64 = 0x2b,
                       kUserCode32 = 0x33, kTssSelector = 0x38, kCode16 = 0x48, kReadOnlyData = 0x50;

  explicit CpuFixture(unsigned vcpus = 1) : memory{make_memory()}, shared{config(vcpus), memory} {
    for (unsigned i = 0; i < vcpus; ++i) shared.cpus.push_back(std::make_unique<Cpu>(shared, i));
    for (auto& each : shared.cpus) each->reset(false);
    write_tables();
    long_mode();
  }

  Cpu& cpu() { return *shared.cpus[0]; }
  CpuState& s() { return cpu().s; }
  u64& reg(Gpr which) { return s().gpr[which]; }

  // ---- modes
  void long_mode(unsigned cpl = 0) {
    s().cr3 = 0x1000;
    s().cr4 = kCr4Pae | kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave | kCr4Fsgsbase | kCr4De;
    s().cr0 = kCr0Pe | kCr0Et | kCr0Ne | kCr0Mp | kCr0Wp | kCr0Pg;
    s().efer = kEferSce | kEferLme | kEferLma | kEferNxe;
    s().xcr0 = 7;
    s().idtr = {kIdt64, 0xfff};
    finish(cpl, cpl == 0 ? kCode64 : kUserCode64, cpl == 0 ? 0xa9b : 0xafb);
    s().rip = kCode;
    s().gpr[kRsp] = kStack;
  }
  void compatibility_mode() {
    long_mode(3);
    s().seg[kCs] = {kUserCode32, 0xcfb, 0xffffffff, 0};
    refresh();
  }
  void protected_mode(unsigned cpl = 0, bool code16 = false) {
    s().cr0 = kCr0Pe | kCr0Et | kCr0Ne;
    s().cr4 = 0;
    s().efer = 0;
    s().idtr = {kIdt32, 0x7ff};
    finish(cpl,
           code16     ? kCode16
           : cpl == 0 ? kCode32
                      : kUserCode32,
           static_cast<u16>((code16 ? 0x09b : 0xc9b) | cpl << 5));
    s().rip = kCode;
    s().gpr[kRsp] = kStack;
  }
  // CS:IP = 4000:0000 (linear 0x40000), DS = ES = 5000, SS:SP = 6000:8000.
  void real_mode() {
    s().cr0 = kCr0Et;
    s().cr4 = s().efer = 0;
    s().rflags = 2;
    s().idtr = {0, 0x3ff};
    for (unsigned i = 0; i < 6; ++i) s().seg[i] = {0x5000, 0x93, 0xffff, 0x50000};
    s().seg[kCs] = {0x4000, 0x93, 0xffff, 0x40000};
    s().seg[kSs] = {0x6000, 0x93, 0xffff, 0x60000};
    s().rip = 0;
    s().gpr[kRsp] = 0x8000;
    s().cpl = 0;
    refresh();
  }
  void refresh() {
    cpu().update_cpl(s().cpl);
    cpu().mode_changed();
    cpu().flush_tlb(true);
  }

  // ---- memory, guest-physical
  void put(u64 at, std::span<const u8> bytes) { ASSERT_TRUE(memory.write(Gpa{at}, std::as_bytes(bytes))); }
  void put(u64 at, std::initializer_list<u8> bytes) { put(at, std::span{bytes.begin(), bytes.size()}); }
  template <class T>
  void poke(u64 at, T value) {
    ASSERT_TRUE(memory.store(Gpa{at}, value));
  }
  template <class T>
  T peek(u64 at) {
    return memory.load<T>(Gpa{at}).value();
  }
  // Page table entry bits of one of the small pages; 0 unmaps it.
  void map(u64 linear, u64 bits) {
    poke<u64>(0x4000 + (linear - 0x400000) / kPageSize * 8, bits == 0 ? 0 : (linear & ~u64{0xfff}) | bits);
    cpu().flush_tlb(true);
  }

  // ---- running
  StepResult run(std::span<const u8> code) {
    put(code_address(), code);
    return step(cpu());
  }
  StepResult run(std::initializer_list<u8> code) { return run(std::span{code.begin(), code.size()}); }
  u64 code_address() { return cpu().code_size() == CodeSize::k64 ? s().rip : s().rip + s().seg[kCs].base; }
  std::optional<unsigned> fault_vector() {
    const u64 at = s().rip + (cpu().code_size() == CodeSize::k64 ? 0 : s().seg[kCs].base);
    if (at < kHandlers || at >= kHandlers + 256 * 16 || at % 16 != 0) return std::nullopt;
    return static_cast<unsigned>(at - kHandlers) / 16;
  }
  // In long mode and protected mode, after a fault with an error code.
  u32 error_code() { return peek<u32>(s().gpr[kRsp]); }
  u64 saved_rip(bool has_error) { return peek<u64>(s().gpr[kRsp] + (has_error ? 8 : 0)); }

  GuestMemory memory;
  SharedState shared;

 private:
  static constexpr u64 kGdt = 0x5000, kIdt64 = 0x6000, kTss = 0x7000, kIdt32 = 0x7800;

  static GuestMemory make_memory() { return std::move(GuestMemory::create({{Gpa{0}, 16_MiB, 0}}).value()); }
  static PartitionConfig config(unsigned vcpus) {
    PartitionConfig c;
    c.vcpus = vcpus;
    c.cpu_model = make_cpu_model("host", vcpus).value();
    return c;
  }

  void finish(unsigned cpl, u16 cs, u16 cs_attributes) {
    const u16 data = cpl == 0 ? kData32 : kUserData;
    for (unsigned i = 0; i < 6; ++i) s().seg[i] = {data, static_cast<u16>(0xc93 | cpl << 5), 0xffffffff, 0};
    s().seg[kCs] = {static_cast<u16>(cs | cpl), cs_attributes, 0xffffffff, 0};
    s().gdtr = {kGdt, 0x7f};
    s().tr = {kTssSelector, 0x8b, 0x67, kTss};
    s().ldtr = {0, kUnusable, 0, 0};
    s().rflags = 2;
    s().cpl = static_cast<u8>(cpl);
    refresh();
  }

  void write_tables() {
    poke<u64>(0x1000, 0x2007);
    poke<u64>(0x2000, 0x3007);
    for (u64 i = 0; i < 8; ++i) poke<u64>(0x3000 + i * 8, i << 21 | 0x87);
    poke<u64>(0x3000 + 2 * 8, 0x4007);
    poke<u64>(0x3000 + (kShared >> 21) * 8, 0x600087);
    for (u64 i = 0; i < 512; ++i) poke<u64>(0x4000 + i * 8, (0x400000 + i * kPageSize) | 7);
    const u64 gdt[] = {0,
                       0x00af9b000000ffff,  // 08 code64
                       0x00cf93000000ffff,  // 10 data
                       0x00cf9b000000ffff,  // 18 code32
                       0x00cff3000000ffff,  // 20 user data
                       0x00affb000000ffff,  // 28 user code64
                       0x00cffb000000ffff,  // 30 user code32
                       0x0000890070000067,  // 38 TSS
                       0,
                       0x00009b000000ffff,   // 48 code16
                       0x00cf91000000ffff};  // 50 read-only data
    for (u64 i = 0; i < std::size(gdt); ++i) poke<u64>(kGdt + i * 8, gdt[i]);
    for (u64 vector = 0; vector < 256; ++vector) {
      const u64 handler = kHandlers + 16 * vector;
      poke<u8>(handler, 0xf4);
      const u64 dpl = vector >= 3 && vector <= 4 ? 3 : 0;
      poke<u64>(kIdt64 + vector * 16, handler | u64{kCode64} << 16 | (0x8e00 | dpl << 13) << 32);
      poke<u64>(kIdt64 + vector * 16 + 8, 0);
      poke<u16>(vector * 4, static_cast<u16>(16 * vector));  // real mode: 0800:16*vector
      poke<u16>(vector * 4 + 2, kHandlers >> 4);
    }
    poke<u64>(kTss + 4, 0x570000);  // RSP0, or ESP0 with SS0 behind it
    for (u64 vector = 0; vector < 256; ++vector)
      poke<u64>(kIdt32 + vector * 8, (kHandlers + 16 * vector) | u64{kCode32} << 16 | u64{0x8e00} << 32);
  }
};

}  // namespace bulkhead::engine::dbt
