// Machine memory of a PV guest: its RAM from `first` on, behind it frames of ours. Machine frame numbers are
// guest-physical page numbers of the engine; physical frame n of a fresh guest is machine frame first + n.
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
  u64 first = 0;  // a multiple of 512
  u64 ram_frames = 0;
  u64 shared_info = 0;    // 1 frame
  u64 grant_frames = 0;   // first of kGrantFrames
  u64 status_frames = 0;  // first of kStatusFrames
  u64 descriptors = 0;    // our page of flat segments
  u64 machine_to_physical = 0;
  u64 machine_to_physical_frames = 0;
  u64 tables = 0, table_frames = 0;
  u64 all_frames = 0;  // RAM and ours
  u64 end() const { return first + all_frames; }
  u64 ram_end() const { return first + ram_frames; }

  static constexpr unsigned kGrantFrames = 64, kStatusFrames = 8;

  // Linux looks a frame up in its own table and in the machine-to-physical one, in turn. Were both tables' pages at the
  // same place of their areas, they would fight for one slot of every direct-mapped cache, our TLB's among them.
  static constexpr u64 kUsualFirst = 512 * 512;

  static constexpr Layout of(u64 ram_frames, u64 first = 0) {
    Layout l;
    l.first = first;
    l.ram_frames = ram_frames;
    u64 next = first + ram_frames;
    const auto take = [&next](u64 count) { return next += count, next - count; };
    l.shared_info = take(1);
    l.grant_frames = take(kGrantFrames);
    l.status_frames = take(kStatusFrames);
    l.descriptors = take(1);
    // The table has an entry for each of its own frames too; one page more is enough for them.
    l.machine_to_physical_frames = (ram_frames * 8 + (ram_frames / 64) + 2 * kPageSize) / kPageSize + 1;
    l.machine_to_physical = take(l.machine_to_physical_frames);
    const u64 leaves = l.machine_to_physical_frames / 512 + 1;
    l.table_frames = (leaves + 1) + (leaves / 512 + 2) + 1 + 3;
    l.tables = take(l.table_frames);
    l.all_frames = next - first;
    return l;
  }
};

}  // namespace bulkhead::abi::xen::pv
