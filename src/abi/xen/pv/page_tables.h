// The guest's machine memory: its frames, their types, and every change of a page table. One lock for all of it.
// Any vCPU's thread. Errors are negative Xen error numbers.
#pragma once
#include <atomic>
#include <functional>
#include <optional>

#include "abi/xen/ports.h"
#include "abi/xen/pv/frame_table.h"
#include "abi/xen/pv/layout.h"
#include "base/assert.h"
#include "base/sync.h"
#include "telemetry/counter.h"

namespace bulkhead::abi::xen::pv {

enum class AccessedDirty : u8 { kAsGiven, kPreserve };

// A present entry that went, or lost something: translations may still come from it.
struct LostEntry {
  u64 order;  // PageTables::losses() before it
  unsigned level, index;
  u64 frame;  // that it named
  bool code;  // it let code run that it does not let run any more
};
using OnLoss = std::function<void(const LostEntry&)>;  // with the lock held

class PageTables {
 public:
  // `memory` is the guest's RAM from frame 0, and behind it our own frames as `layout` has them. Fills the hypervisor's
  // area: the machine-to-physical table (each frame its own number) and the tables that map it.
  PageTables(const GuestMemory& memory, const Layout& layout);

  void set_stop_writes(std::function<void(u64 frame)> stop) {
    Lock lock{mutex_};
    frames_.set_stop_writes(std::move(stop));
  }
  const Layout& layout() const { return layout_; }
  // The host address of a frame of the guest's own; nullptr: it is not.
  std::byte* guest_page(u64 frame);
  u64 frame_at(const std::byte* page) const;  // of any page of this memory
  void note_written(u64 frame) { memory_.note_written(Gpa{frame << kPageShift}, kPageSize); }
  // For whoever uses a frame beside the guest: it stays the guest's and, with kWrite, ordinary memory. Also of those of
  // ours that the guest may map. nullptr: it is not to be had.
  std::byte* hold(u64 frame, Hold use);
  void let_go(u64 frame, Hold use);

  // Writes the 8 bytes at a machine address: an entry, checked, if the frame is a page table, else just data.
  i64 update(u64 machine, u64 value, AccessedDirty bits, const OnLoss& on_loss = {});
  u64 losses() const { return losses_.load(std::memory_order_acquire); }  // so far
  // The entry that maps `linear` in the tall tree under `root`; nullopt: there is no table for it.
  std::optional<u64> leaf_entry(u64 root, u64 linear);  // its machine address
  // Makes the changes that the guest wanted to make itself to a table of level 1, by comparing with `copy`, which it
  // wrote to; `before` is what `copy` was. False: the table changed meanwhile (try again), or one is refused.
  enum class Written : u8 { kDone, kAgain, kRefused };
  bool is_leaf_table(u64 frame);
  Written write_leaf_table(u64 frame, const u64* before, const u64* copy, const OnLoss& on_loss = {});

  // Grants that the guest maps. `value` goes into the entry of a level 1 table at `machine`; or what maps `frame` there
  // goes, and what the entry at `moved_from` maps (if it is not 0) comes from there.
  i64 show_grant(u64 machine, u64 value);
  i64 hide_grant(u64 machine, u64 frame, u64 moved_from);

  i64 pin(u64 frame, unsigned level);
  i64 unpin(u64 frame);
  // A top-level table that a vCPU runs on.
  i64 take_root(u64 frame);
  void put_root(u64 frame);
  // Whether the guest kernel's part of both trees is the same, so that its translations may be kept.
  bool same_kernel_half(u64 root, u64 other);
  // A frame of segment descriptors.
  i64 take_descriptors(u64 frame);
  void put_descriptors(u64 frame);
  i64 write_descriptor(u64 machine, u64 descriptor);
  // The guest's descriptor tables in the hypervisor's area: frame number 0 is "none".
  void map_descriptors(unsigned vcpu, std::span<const u64> frames);
  u64 descriptor_base(unsigned vcpu) const { return kPerDomainStart + u64{vcpu} * kDescriptorStride; }

  i64 set_machine_to_physical(u64 frame, u64 physical);
  i64 clear_page(u64 frame);
  i64 copy_page(u64 to, u64 from);

  // Ballooning.
  i64 release(u64 frame);
  i64 populate(u64& frame);  // physical number in, machine frame out
  u64 current_pages();

  // Kinds of refusal, and work done.
  enum Counter : std::size_t { kUpdates, kRefusedUpdates, kValidations, kPins, kRefusedPins };
  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  i64 update_entry(u64 frame, unsigned level, unsigned index, u64 value, AccessedDirty bits, const OnLoss& on_loss = {})
      BH_REQUIRES(mutex_);
  bool table_is_empty(u64 frame) BH_REQUIRES(mutex_);
  void note_loss(unsigned level, unsigned index, u64 before, u64 now, const OnLoss& on_loss) BH_REQUIRES(mutex_);
  bool in_leaf_table(u64 machine) BH_REQUIRES(mutex_);
  u64 read_entry(u64 machine) BH_REQUIRES(mutex_);
  i64 write_leaf_entry(u64 machine, u64 value) BH_REQUIRES(mutex_);
  i64 update_data(u64 frame, unsigned index, u64 value) BH_REQUIRES(mutex_);
  void build_hypervisor_area() BH_REQUIRES(mutex_);
  u64 new_table() BH_REQUIRES(mutex_);
  u64& physical_of(u64 frame) BH_REQUIRES(mutex_);  // its entry in the machine-to-physical table
  i64 counted(i64 result, Counter refused) BH_REQUIRES(mutex_);

  const GuestMemory& memory_;
  const Layout layout_;
  Mutex mutex_;
  FrameTable frames_ BH_GUARDED_BY(mutex_);
  std::atomic<u64> losses_{0};  // changed with the lock held
  u64 next_table_ BH_GUARDED_BY(mutex_);
  u64 descriptor_table_ = 0;  // the level 1 table of the vCPUs' descriptor tables
  u64 current_pages_ BH_GUARDED_BY(mutex_);
  std::vector<u64> free_ BH_GUARDED_BY(mutex_);  // ballooned-out frames
  telemetry::CounterSet counters_{
      {"pv_table_updates", "pv_table_updates_refused", "pv_table_validations", "pv_pins", "pv_pins_refused"}};
};

}  // namespace bulkhead::abi::xen::pv
