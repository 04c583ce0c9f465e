// Who owns each machine frame and what it is used as. A frame is at any time either writable by the guest or a page
// table of one level or a table of segment descriptors, and counted while anything relies on that; so the guest cannot
// write its page tables other than through us, and they map only what is the guest's.
//
// Not thread-safe: the caller holds the lock of the guest's memory (PageTables).
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "abi/xen/pv/entry.h"
#include "memory/guest_memory.h"

namespace bulkhead::abi::xen::pv {

enum class FrameType : u8 { kNone, kL1, kL2, kL3, kL4, kData, kDescriptors };
constexpr FrameType table_type(unsigned level) { return static_cast<FrameType>(level); }
constexpr unsigned table_level(FrameType type) {
  return type >= FrameType::kL1 && type <= FrameType::kL4 ? static_cast<unsigned>(type) : 0;
}

enum class Owner : u8 {
  kNobody,  // ballooned out
  kGuest,
  kShared,  // ours, and the guest may map it: shared info, grant frames
  kXen,     // ours: page tables of the hypervisor's area, the machine-to-physical table
};

struct Frame {
  u32 type_uses = 0;   // while not 0, `type` cannot change
  u32 references = 0;  // entries that map it, and what else holds it
  FrameType type = FrameType::kNone;
  Owner owner = Owner::kNobody;
  bool pinned = false;
  bool written = false;  // may be in a TLB as writable
};

// Entries that the hypervisor puts into each top-level table.
struct XenSlots {
  u64 machine_to_physical = 0, per_domain = 0;  // entries for slots 256 and 260
};

class FrameTable {
 public:
  // `ram_frames` from `first` on are the guest's, the others kXen until set_owner() says otherwise.
  FrameTable(const GuestMemory& memory, u64 ram_frames, u64 all_frames, u64 first = 0);
  // Called before a frame that the guest could write to leaves it or becomes something that it may not: no vCPU may
  // write to it through an old translation any more.
  void set_stop_writes(std::function<void(u64 frame)> stop) { stop_writes_ = std::move(stop); }
  u64 size() const { return frames_.size(); }
  Frame& operator[](u64 frame) { return frames_[frame - first_]; }
  bool exists(u64 frame) const { return frame >= first_ && frame - first_ < frames_.size(); }
  bool is_guests(u64 frame) const { return exists(frame) && frames_[frame - first_].owner == Owner::kGuest; }
  void set_owner(u64 frame, Owner owner) { frames_[frame - first_].owner = owner; }
  void set_xen_slots(const XenSlots& slots) { slots_ = slots; }
  u64* table(u64 frame) const;  // host address

  // Counts a use of the frame as `type`, after making sure (validating a page table and all below it) that it can be.
  // A negative Xen error number, and nothing changed, if not.
  i64 get_type(u64 frame, FrameType type);
  // No vCPU writes to it through an old translation when this returns. Of a frame that has no uses.
  void end_writes(u64 frame);
  void put_type(u64 frame);  // the last one takes the uses of a page table's entries away too

  // What an entry of a table of `level` relies on.
  i64 get_entry(unsigned level, u64 entry);
  void put_entry(unsigned level, u64 entry);
  // As it is stored: everything in the guest is ring 3's.
  static u64 adjusted(u64 entry) { return (entry & kPresent) ? entry | kUser : entry; }
  u64 validations() const { return validations_; }
  // Tables looked through by the calling thread, for a bound on the work of one hypercall.
  static u64 walked_here();

 private:
  i64 get_leaf(u64 entry);
  i64 validate(u64 frame, unsigned level);
  i64 validate_descriptors(u64 frame);
  void devalidate(u64 frame, unsigned level, unsigned entries);
  void put_xen_slots(u64* entries) const;

  const GuestMemory& memory_;
  std::vector<Frame> frames_;
  const u64 first_;
  XenSlots slots_;
  std::function<void(u64)> stop_writes_;
  u64 validations_ = 0;
};

// A descriptor as it may stand in a guest's table: not present, or code or data of ring 3. Gates and system segments
// are refused. nullopt: refused.
std::optional<u64> checked_descriptor(u64 descriptor);

}  // namespace bulkhead::abi::xen::pv
