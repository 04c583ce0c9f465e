// One vCPU with a little RAM, page tables, GDT, IDT and TSS that a test can bend. For the tests of cpu/ and mmu/.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>

#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {

inline CpuModel test_model(bool amd = false) {
  CpuModel model;
  model.name = "test";
  model.tsc_hz = 1'000'000'000;
  model.xcr0_mask = 7;
  model.leaves = {
      {0, 0, 0xd, amd ? 0x68747541u : 0x756e6547u, amd ? 0x444d4163u : 0x6c65746eu, amd ? 0x69746e65u : 0x49656e69u},
      {1, 0, 0x000306c3, 0, 1u << 17 | 1u << 21 | 1u << 24 | 1u << 26, 0x07837bfb & ~2u},
      {7, 0, 0, 1u << 0 | 1u << 1 | 1u << 7 | 1u << 10 | 1u << 20, 1u << 2, 1u << 26 | 1u << 28 | 1u << 29},
      {0xd, 1, 8, 0, 0, 0},
      {0x80000001, 0, 0, 0, 1, 1u << 11 | 1u << 20 | 1u << 26 | 1u << 27 | 1u << 29},
      {0x80000008, 0, 0x3028, 0, 0, 0}};
  return model;
}

struct TestGuest {
  static constexpr u64 kRam = 16_MiB;
  static constexpr u64 kTables = 0x10000;  // page tables: PML4, then as many pages as map() needs
  static constexpr u64 kGdt = 0x1000, kIdt = 0x2000, kTss = 0x4000, kTss2 = 0x5000, kStack = 0x8000;
  static constexpr u16 kCode64 = 0x08, kData = 0x10, kCode32 = 0x18, kUserData = 0x2b, kUserCode64 = 0x33,
                       kUserCode32 = 0x23, kTssSelector = 0x40, kTss2Selector = 0x50, kFree = 0x60;

  explicit TestGuest(bool amd = false, unsigned vcpus = 1)
      : memory{*GuestMemory::create({{Gpa{0}, kRam, 0}})},
        shared{{.vcpus = vcpus, .cpu_model = test_model(amd), .options = {}}, memory} {
    for (unsigned i = 0; i < vcpus; ++i) shared.cpus.push_back(std::make_unique<Cpu>(shared, i));
  }

  Cpu& cpu() { return *shared.cpus[0]; }
  CpuState& s() { return cpu().s; }

  void poke(u64 gpa, u64 value, unsigned size = 8) {
    ASSERT_TRUE(memory.write(Gpa{gpa}, std::as_bytes(std::span{reinterpret_cast<const u8*>(&value), size})));
  }
  u64 peek(u64 gpa, unsigned size = 8) {
    u64 value = 0;
    EXPECT_TRUE(memory.read(Gpa{gpa}, std::as_writable_bytes(std::span{reinterpret_cast<u8*>(&value), size})));
    return value;
  }

  // Runs `body`; the fault that it raised, if any. An exit counts as vector 0xff.
  template <class Body>
  std::optional<Fault> attempt(Body&& body) {
    BH_GUARD(cpu()) {
      body();
      return std::nullopt;
    }
    return cpu().escape_kind == Escape::kExit ? Fault{0xff, false, 0, 0} : cpu().fault;
  }

  // ---- paging, 4-level. Upper levels allow everything.
  u64 table_below(u64 entry_at, u64 flags) {
    if (u64 entry = peek(entry_at); entry & 1) return entry & 0xffffffffff000;
    const u64 page = next_table;
    next_table += kPageSize;
    poke(entry_at, page | flags);
    return page;
  }
  // Where the entry of `level` (1..4) for `linear` lies.
  u64 entry_at(u64 linear, unsigned level, u64 flags = 7) {
    u64 table = kTables;
    for (unsigned at = 4;; --at) {
      const u64 entry = table + 8 * ((linear >> (12 + 9 * (at - 1))) & 511);
      if (at == level) return entry;
      table = table_below(entry, flags);
    }
  }
  void map(u64 linear, u64 entry, unsigned level = 1) { poke(entry_at(linear, level), entry); }

  // ---- descriptors
  static u64 descriptor(unsigned access, unsigned flags, u64 base = 0, u64 limit = 0xfffff) {
    return (limit & 0xffff) | (base & 0xffffff) << 16 | u64{access} << 40 | (limit >> 16 & 0xf) << 48 |
           u64{flags} << 52 | (base >> 24 & 0xff) << 56;
  }
  void set_gdt(u16 selector, u64 low, u64 high = 0) {
    poke(kGdt + (selector & ~7u), low);
    if (high != 0) poke(kGdt + (selector & ~7u) + 8, high);
  }
  void gate64(unsigned vector, u64 offset, unsigned access = 0x8e, u16 selector = kCode64, unsigned ist = 0) {
    poke(kIdt + 16 * vector,
         (offset & 0xffff) | u64{selector} << 16 | u64{ist} << 32 | u64{access} << 40 | (offset >> 16 & 0xffff) << 48);
    poke(kIdt + 16 * vector + 8, offset >> 32);
  }
  void gate32(unsigned vector, u32 offset, unsigned access = 0x8e, u16 selector = kCode32) {
    poke(kIdt + 8 * vector, (offset & 0xffff) | u64{selector} << 16 | u64{access} << 40 | u64{offset >> 16} << 48);
  }
  void tables(bool wide) {
    set_gdt(kCode64, descriptor(0x9a, 0xa));
    set_gdt(kData, descriptor(0x92, 0xc));
    set_gdt(kCode32, descriptor(0x9a, 0xc));
    set_gdt(kUserCode32, descriptor(0xfa, 0xc));
    set_gdt(kUserData, descriptor(0xf2, 0xc));
    set_gdt(kUserCode64, descriptor(0xfa, 0xa));
    set_gdt(kTssSelector, descriptor(0x8b, 0, kTss, 0xfff));
    set_gdt(kTss2Selector, descriptor(0x89, 0, kTss2, 0xfff));
    s().gdtr = {kGdt, 0x1ff};
    s().idtr = {kIdt, wide ? 0xfffu : 0x7ffu};
    s().tr = {kTssSelector, 0x8b, 0xfff, kTss};
  }

  // Ring 0, 64-bit, the first 4 MiB identity-mapped for all (with 2 MiB pages), everything in working order.
  void long_mode() {
    tables(true);
    s().cr0 = 0x80010031;
    s().cr4 = kCr4Pae | kCr4Pge | kCr4Osfxsr;
    s().efer = kEferLme | kEferLma | kEferNxe | kEferSce;
    s().cr3 = kTables;
    for (u64 at = 0; at < 4_MiB; at += 2_MiB) map(at, at | 0xe7, 2);
    segment(kCs, kCode64);
    for (const Seg seg : {kSs, kDs, kEs, kFs, kGs}) segment(seg, kData);
    poke(kTss + 4, kStack);
    start();
  }
  // Ring 0, 32-bit flat, no paging.
  void protected_mode() {
    tables(false);
    s().cr0 = 0x31;
    segment(kCs, kCode32);
    for (const Seg seg : {kSs, kDs, kEs, kFs, kGs}) segment(seg, kData);
    poke(kTss + 4, kStack, 4);
    poke(kTss + 8, kData, 2);
    start();
  }
  void start() {
    s().gpr[kRsp] = kStack - 0x800;
    s().rip = 0x7000;
    cpu().update_cpl(0);
    cpu().mode_changed();
    cpu().flush_tlb(true);
  }
  void segment(Seg seg, u16 selector) {
    Descriptor d;
    d.low = peek(kGdt + (selector & ~7u)) | u64{1} << 40;
    s().seg[seg] = d.segment(selector);
  }
  void to_user(bool wide = true) {
    segment(kCs, wide ? kUserCode64 : kUserCode32);
    segment(kSs, kUserData);
    cpu().update_cpl(3);
  }

  GuestMemory memory;
  SharedState shared;
  u64 next_table = kTables + kPageSize;
};

}  // namespace bulkhead::engine::dbt
