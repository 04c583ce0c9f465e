#include "abi/flat_state.h"

#include <gtest/gtest.h>

#include "abi/boot_info.h"

namespace bulkhead::abi {
namespace {

// Walks the page tables as a processor does; nothing if a level is not present.
std::optional<u64> translate(const GuestMemory& memory, u64 cr3, u64 address) {
  u64 table = cr3;
  for (int level = 3; level >= 0; --level) {
    const auto entry = memory.load<u64>(Gpa{(table & ~u64{0xfff}) + ((address >> (12 + 9 * level)) & 511) * 8});
    if (!entry || (*entry & 1) == 0) return std::nullopt;
    const u64 page = u64{1} << (12 + 9 * level);
    if (level == 0 || (*entry & 0x80) != 0) return (*entry & ~u64{0xfff} & ~(page - 1)) | (address & (page - 1));
    table = *entry;
  }
  return std::nullopt;
}

TEST(FlatState, Flat64MapsTheFirst4GiBOneToOne) {
  const auto memory = GuestMemory::create_pc(2_MiB);
  engine::VcpuState state;
  ASSERT_TRUE(enter_flat64(state, *memory, 0x1000000));
  for (const u64 address : {u64{0}, u64{0x7c00}, u64{0x1234567}, u64{0xfee00030}, u64{0xffffffff}})
    EXPECT_EQ(translate(*memory, state.cr3, address), address);
  EXPECT_EQ(translate(*memory, state.cr3, u64{1} << 32), std::nullopt);
  EXPECT_EQ(state.rip, 0x1000000u);
  EXPECT_EQ(state.efer, 0x500u);
  EXPECT_EQ(state.cr4 & 0x20, 0x20u);
  EXPECT_EQ(state.cr0 & 0x80000001, 0x80000001u);
}

TEST(FlatState, Flat64GdtHoldsTheSegmentsInUse) {
  const auto memory = GuestMemory::create_pc(2_MiB);
  engine::VcpuState state;
  ASSERT_TRUE(enter_flat64(state, *memory, 0));
  EXPECT_EQ(memory->load<u64>(Gpa{state.gdtr.base + state.segments[1].selector}), 0x00af9b000000ffffu);
  EXPECT_EQ(memory->load<u64>(Gpa{state.gdtr.base + state.segments[3].selector}), 0x00cf93000000ffffu);
  EXPECT_EQ(state.gdtr.limit, 31);
}

TEST(FlatState, Flat32KeepsWhatItDoesNotName) {
  engine::VcpuState state;
  state.msrs = {{0x1b, 0xfee00900}};
  state.cr0 = 0x60000010;
  state.gpr[7] = 5;
  enter_flat32(state, 0x100000);
  EXPECT_EQ(state.cr0, 0x11u);
  EXPECT_EQ(state.cr4, 0u);
  EXPECT_EQ(state.rflags, 2u);
  EXPECT_EQ(state.gpr[7], 0u);
  EXPECT_EQ(state.segments[1].attributes, 0xc9b);
  EXPECT_EQ(state.segments[3].limit, 0xffffffffu);
  EXPECT_EQ(state.tr.limit, 0x67u);
  EXPECT_EQ(state.msrs.size(), 1u);
}

TEST(FlatState, NoLowMemory) {
  const auto memory = GuestMemory::create_pc(64_KiB);
  engine::VcpuState state;
  EXPECT_FALSE(enter_flat64(state, *memory, 0));
}

}  // namespace
}  // namespace bulkhead::abi
