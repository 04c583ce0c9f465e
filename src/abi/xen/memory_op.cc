// memory_op: how much memory there is, giving some back and taking it again, and placing our pages in a PVH guest's
// map [xen/memory.h].
#include <xen/memory.h>

#include <algorithm>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {
constexpr unsigned kExtentShift = 6;   // MEMOP_EXTENT_SHIFT: the command's upper bits are extents done before
constexpr unsigned kLargestOrder = 9;  // 2 MiB, Xen's limit for unprivileged guests
constexpr u32 kE820Entry = 20;         // bytes

enum class Change : u8 { kGive, kTake, kFill };

struct Reservation {
  DomainParts& d;
  Guest& guest;
  Change change;
  u64 list;
  unsigned order;

  u64 pages() const { return u64{1} << order; }

  // One extent; false: it stays as it was, or what came first of it stays.
  bool one(u64 index) {
    const u64 at = list + index * sizeof(u64);
    u64 first = 0;
    if (change != Change::kTake && !guest.read(at, first)) return false;
    if (change == Change::kGive) return give(first);
    return take(first, at);
  }
  bool give(u64 first) {
    for (u64 i = 0; i < pages(); ++i)
      if (d.frames.release(first + i) < 0) return refuse();
    return true;
  }
  // PV guests are told which machine frame they got. Ours are given one by one, so a larger extent is refused to them.
  bool take(u64 first, u64 at) {
    if (d.is_pv() && order != 0) return refuse();
    u64 told = first;
    for (u64 i = 0; i < pages(); ++i) {
      u64 frame = first + i;
      if (d.frames.populate(frame) < 0) return refuse();
      if (i == 0) told = frame;
    }
    return !d.is_pv() || guest.write(at, told);
  }
  bool refuse() {
    d.counters[kRefusedMemory].add();
    return false;
  }
};

// The answer is how many extents are done, whatever stopped us.
i64 change_reservation(DomainParts& d, Guest& guest, Change change, u64 at, u64 done) {
  xen_memory_reservation_t arg;
  if (!guest.read(at, arg)) return static_cast<i64>(done);
  if (!d.is_self(arg.domid) || arg.extent_order > kLargestOrder) return static_cast<i64>(done);
  if (change == Change::kTake && !d.is_pv()) return static_cast<i64>(done);
  Reservation reservation{d, guest, change, reinterpret_cast<u64>(arg.extent_start.p), arg.extent_order};
  u64& work = d.vcpu[guest.vcpu()].work;
  for (; done < arg.nr_extents; ++done) {
    work += 4 * reservation.pages();
    if (work > kWorkLimit || !reservation.one(done)) break;
  }
  return static_cast<i64>(done);
}

i64 domain_pages(DomainParts& d, Guest& guest, u64 at, bool maximum) {
  xen_memory_domain arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (!d.is_self(arg.domid)) return arg.domid == 0 ? -kXEPERM : -kXESRCH;
  return static_cast<i64>(maximum ? d.frames.maximum_pages() : d.frames.current_pages());
}

i64 maximum_gpfn(DomainParts& d, Guest& guest, u64 at) {
  xen_memory_domain arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (!d.is_self(arg.domid)) return arg.domid == 0 ? -kXEPERM : -kXESRCH;
  return static_cast<i64>(d.frames.maximum_frame());
}

i64 memory_map(DomainParts& d, Guest& guest, u64 at) {
  struct [[gnu::packed]] Entry {
    u64 start, size;
    u32 type;
  };
  static_assert(sizeof(Entry) == kE820Entry);
  xen_memory_map_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  const auto& map = d.config.memory_map;
  if (map.empty()) return -kXENOSYS;
  arg.nr_entries = std::min<unsigned>(arg.nr_entries, static_cast<unsigned>(map.size()));
  for (unsigned i = 0; i < arg.nr_entries; ++i)
    if (!guest.write(reinterpret_cast<u64>(arg.buffer.p) + i * sizeof(Entry),
                     Entry{map[i].start, map[i].size, map[i].type}))
      return -kXEFAULT;
  return guest.write(at, arg) ? 0 : -kXEFAULT;
}

// The page of ours that `index` names in `space`; nullptr: there is none.
std::byte* page_of(DomainParts& d, unsigned space, u64 index) {
  if (space == XENMAPSPACE_shared_info) return index == 0 ? d.pages.shared_info : nullptr;
  if (space != XENMAPSPACE_grant_table) return nullptr;
  if (index & XENMAPIDX_grant_table_status) {
    index &= ~u64{XENMAPIDX_grant_table_status};
    return index < d.grants.status_frames() ? d.grants.status_frame(static_cast<u32>(index)) : nullptr;
  }
  if (index >= d.grants.max_frames()) return nullptr;
  const u32 frame = static_cast<u32>(index);
  return d.grants.grow(frame + 1) ? d.grants.frame(frame) : nullptr;
}

i64 place(DomainParts& d, unsigned space, u64 index, u64 frame) {
  if (d.is_pv()) return -kXEACCES;
  if (space == XENMAPSPACE_gmfn_foreign) return -kXEPERM;
  if (space != XENMAPSPACE_shared_info && space != XENMAPSPACE_grant_table) return -kXEOPNOTSUPP;
  std::byte* const page = page_of(d, space, index);
  const i64 result = page != nullptr ? d.frames.place(frame, page) : -kXEINVAL;
  if (result < 0) d.counters[kRefusedMemory].add();
  return result;
}

i64 add_to_physmap(DomainParts& d, Guest& guest, u64 at) {
  xen_add_to_physmap_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (!d.is_self(arg.domid)) return arg.domid == 0 ? -kXEPERM : -kXESRCH;
  return place(d, arg.space, arg.idx, arg.gpfn);
}

i64 add_to_physmap_batch(DomainParts& d, Guest& guest, u64 at) {
  xen_add_to_physmap_batch_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (!d.is_self(arg.domid)) return arg.domid == 0 ? -kXEPERM : -kXESRCH;
  if (arg.space != XENMAPSPACE_gmfn_foreign && arg.u.res0 != 0) return -kXEINVAL;
  for (u32 i = 0; i < arg.size; ++i) {
    u64 index = 0, frame = 0;
    if (!guest.read(reinterpret_cast<u64>(arg.idxs.p) + i * sizeof(u64), index) ||
        !guest.read(reinterpret_cast<u64>(arg.gpfns.p) + i * sizeof(u64), frame))
      return -kXEFAULT;
    const int error = static_cast<int>(place(d, arg.space, index, frame));
    if (!guest.write(reinterpret_cast<u64>(arg.errs.p) + i * sizeof(int), error)) return -kXEFAULT;
  }
  return 0;
}

i64 remove_from_physmap(DomainParts& d, Guest& guest, u64 at) {
  xen_remove_from_physmap_t arg;
  if (!guest.read(at, arg)) return -kXEFAULT;
  if (!d.is_self(arg.domid)) return arg.domid == 0 ? -kXEPERM : -kXESRCH;
  if (d.is_pv()) return -kXEACCES;
  const i64 result = d.frames.release(arg.gpfn);
  if (result < 0) d.counters[kRefusedMemory].add();
  return result;
}
}  // namespace

Answer memory_op(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  const u64 command = args[0] & ((1u << kExtentShift) - 1), done = args[0] >> kExtentShift, at = args[1];
  switch (command) {
    case XENMEM_increase_reservation:
      return {change_reservation(domain, guest, Change::kTake, at, done)};
    case XENMEM_decrease_reservation:
      return {change_reservation(domain, guest, Change::kGive, at, done)};
    case XENMEM_populate_physmap:
      return {change_reservation(domain, guest, Change::kFill, at, done)};
    case XENMEM_maximum_ram_page:
      return {static_cast<i64>(domain.frames.maximum_frame())};
    case XENMEM_current_reservation:
      return {domain_pages(domain, guest, at, false)};
    case XENMEM_maximum_reservation:
      return {domain_pages(domain, guest, at, true)};
    case XENMEM_maximum_gpfn:
      return {maximum_gpfn(domain, guest, at)};
    case XENMEM_memory_map:
      return {memory_map(domain, guest, at)};
    case XENMEM_add_to_physmap:
      return {add_to_physmap(domain, guest, at)};
    case XENMEM_add_to_physmap_batch:
      return {add_to_physmap_batch(domain, guest, at)};
    case XENMEM_remove_from_physmap:
      return {remove_from_physmap(domain, guest, at)};
    case XENMEM_exchange:  // for DMA by real devices, which no zone has
      return {-kXEOPNOTSUPP};
    case XENMEM_machine_memory_map:
    case XENMEM_set_memory_map:
    case XENMEM_set_pod_target:
    case XENMEM_get_pod_target:
      return {-kXEPERM};
    default:
      return domain.unknown_operation();
  }
}

}  // namespace bulkhead::abi::xen
