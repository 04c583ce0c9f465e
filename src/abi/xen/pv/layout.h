// Machine memory of a PV guest: its RAM from frame 0 on, behind it frames of ours. Frame numbers are guest-physical
// page numbers of the engine.
#pragma once
#include "base/bits.h"
#include "base/ints.h"

namespace bulkhead::abi::xen::pv {

// The hypervisor's area as the guest sees it [xen/arch-x86/xen-x86_64.h]: the table is architectural, the rest ours.
inline constexpr u64 kMachineToPhysicalStart = 0xffff800000000000;
inline constexpr u64 kPerDomainStart = 0xffff820000000000;
inline constexpr unsigned kDescriptorPages = 16;  // of a vCPU's GDT; the guest's are the first 14, ours is the 15th
inline constexpr unsigned kGuestDescriptorPages = 14;
inline constexpr u64 kDescriptorStride = u64{kDescriptorPages} << 12;
inline constexpr unsigned kMaxVcpus = 32;  // that many descriptor tables fit below one table of level 1

struct Layout {
  u64 ram_frames = 0;
  u64 shared_info = 0;    // 1 frame
  u64 grant_frames = 0;   // first of kGrantFrames
  u64 status_frames = 0;  // first of kStatusFrames
  u64 descriptors = 0;    // our page of flat segments
  u64 machine_to_physical = 0;
  u64 machine_to_physical_frames = 0;
  u64 tables = 0, table_frames = 0;
  u64 all_frames = 0;

  static constexpr unsigned kGrantFrames = 64, kStatusFrames = 8;

  static constexpr Layout of(u64 ram_frames) {
    Layout l;
    l.ram_frames = ram_frames;
    u64 next = ram_frames;
    const auto take = [&next](u64 count) { return next += count, next - count; };
    l.shared_info = take(1);
    l.grant_frames = take(kGrantFrames);
    l.status_frames = take(kStatusFrames);
    l.descriptors = take(1);
    // The table has an entry for each of its own frames too; one page more is enough for them.
    l.machine_to_physical_frames = (ram_frames * 8 + (ram_frames / 64) + 2 * kPageSize) / kPageSize + 1;
    l.machine_to_physical = take(l.machine_to_physical_frames);
    const u64 leaves = l.machine_to_physical_frames / 512 + 1;
    l.table_frames = leaves + (leaves / 512 + 1) + 1 + 3;
    l.tables = take(l.table_frames);
    l.all_frames = next;
    return l;
  }
};

}  // namespace bulkhead::abi::xen::pv
