#include "abi/flat_state.h"

#include <array>

#include "abi/boot_info.h"
#include "spec/linux_boot.h"

namespace bulkhead::abi {
namespace {
using engine::SegmentState;

// [SDM-3A §2.5 "Control Registers"], [SDM-3A §3.4.5 "Segment Descriptors"]
constexpr u64 kCr0Pe = 1u << 0, kCr0Et = 1u << 4, kCr0Ne = 1u << 5, kCr0Wp = 1u << 16, kCr0Pg = u64{1} << 31;
constexpr u64 kCr4Pae = 1u << 5;
constexpr u64 kEferLme = 1u << 8, kEferLma = 1u << 10;
constexpr u16 kCode32 = 0xc9b, kCode64 = 0xa9b, kData = 0xc93, kBusyTss32 = 0x8b, kLdt = 0x82;
constexpr u64 kPresent = 1, kWritable = 2, kLargePage = 0x80;

void flat_segments(engine::VcpuState& state, u16 code_selector, u16 code, u16 data_selector) {
  for (SegmentState& segment : state.segments) segment = {data_selector, 0, 0xffffffff, kData};
  state.segments[1] = {code_selector, 0, 0xffffffff, code};
  state.tr = {0, 0, 0x67, kBusyTss32};
  state.ldtr = {0, 0, 0xffff, kLdt};
}

// The descriptor of a flat segment with the attributes of SegmentState.
constexpr u64 descriptor(u16 attributes) {
  return 0x000f00000000ffff | (u64{attributes} & 0xff) << 40 | (u64{attributes} & 0xf00) << 44;
}

Result<void> write_identity_map(const GuestMemory& memory) {
  std::array<u64, 6 * 512> tables{};
  tables[0] = (kPageTables.value + kPageSize) | kPresent | kWritable;
  for (u64 gib = 0; gib < 4; ++gib)
    tables[512 + gib] = (kPageTables.value + (2 + gib) * kPageSize) | kPresent | kWritable;
  for (u64 page = 0; page < 4 * 512; ++page) tables[1024 + page] = page * 2_MiB | kPresent | kWritable | kLargePage;
  if (!memory.write(kPageTables, std::as_bytes(std::span{tables})))
    return fail("the zone's memory is too small for a kernel's page tables: give it at least 2 MiB");
  return {};
}
}  // namespace

void enter_flat32(engine::VcpuState& state, u32 entry) {
  state.gpr = {};
  state.rip = entry;
  state.rflags = 2;
  flat_segments(state, 0x08, kCode32, 0x10);
  state.gdtr = {};
  state.idtr = {};
  state.cr0 = kCr0Pe | kCr0Et;
  state.cr2 = state.cr3 = state.cr4 = state.efer = 0;
}

Result<void> enter_flat64(engine::VcpuState& state, const GuestMemory& memory, u64 entry) {
  BH_TRY(write_identity_map(memory));
  const std::array<u64, 4> gdt{0, 0, descriptor(kCode64), descriptor(kData)};
  if (!memory.store(kBootGdt, gdt)) return fail("the zone's memory is too small for a boot GDT");
  state.gpr = {};
  state.rip = entry;
  state.rflags = 2;
  flat_segments(state, spec::linux_boot::kBootCs, kCode64, spec::linux_boot::kBootDs);
  state.gdtr = {kBootGdt.value, sizeof(gdt) - 1};
  state.idtr = {};
  state.cr0 = kCr0Pe | kCr0Et | kCr0Ne | kCr0Wp | kCr0Pg;
  state.cr2 = 0;
  state.cr3 = kPageTables.value;
  state.cr4 = kCr4Pae;
  state.efer = kEferLme | kEferLma;
  return {};
}

}  // namespace bulkhead::abi
