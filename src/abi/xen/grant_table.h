// The guest's grant table, versions 1 and 2: which of its pages it lets whom use [xen/grant_table.h]. The guest writes
// entries at any time; while a grant is in use, what it said at first holds, and the entry shows that it is in use.
// Every method from any thread.
#pragma once
#include <xen/grant_table.h>
#include <xen/xen.h>

#include <span>
#include <vector>

#include "abi/xen/counters.h"
#include "abi/xen/domain.h"
#include "base/sync.h"

namespace bulkhead::abi::xen {

class GrantTable final : public GrantHost {
 public:
  GrantTable(const DomainConfig& config, const XenPages& pages, Frames& frames, DomainCounters& counters);

  // ---- shape
  u32 version() const BH_EXCLUDES(mutex_);
  i64 set_version(u32 version) BH_EXCLUDES(mutex_);  // 0 or a negative Xen error
  u32 frames() const BH_EXCLUDES(mutex_);
  u32 max_frames() const { return max_frames_; }
  bool grow(u32 frames) BH_EXCLUDES(mutex_);      // to at least so many; false: more than there may be
  u32 status_frames() const BH_EXCLUDES(mutex_);  // 0 in version 1
  std::byte* frame(u32 index) const { return shared_ + index * kPageSize; }
  std::byte* status_frame(u32 index) const { return status_ + index * kPageSize; }

  // ---- use. Statuses are GNTST_*.
  struct Access {
    std::byte* page = nullptr;
    u64 frame = 0;
    u16 start = 0, length = 0;  // of what is granted; length 4096: all
  };
  // Pins `reference` for domain `user` until drop() with the same arguments.
  i16 take(u32 reference, u16 user, bool writable, bool sub_page_too, Access& access) BH_EXCLUDES(mutex_);
  void drop(u32 reference, bool writable) BH_EXCLUDES(mutex_);
  i16 swap(u32 a, u32 b) BH_EXCLUDES(mutex_);

  // ---- GrantHost
  std::byte* map(u32 reference, bool writable) override;
  void unmap(u32 reference, bool writable) override;
  u64 mapped() const override BH_EXCLUDES(mutex_);
  void grant_for_guest(u32 reference, u64 frame) override BH_EXCLUDES(mutex_);

 private:
  struct Active {
    Access access;
    u16 domain = 0;
    bool writable = false;  // allowed, whether or not somebody writes
    u32 readers = 0, writers = 0;
  };
  struct Offer {  // an entry as it was when we pinned it
    u16 flags = 0, domain = 0;
  };
  u32 entries() const BH_REQUIRES(mutex_);
  grant_entry_v1_t& v1(u32 i) const { return reinterpret_cast<grant_entry_v1_t*>(shared_)[i]; }
  grant_entry_v2_t& v2(u32 i) const { return reinterpret_cast<grant_entry_v2_t*>(shared_)[i]; }
  grant_status_t& status(u32 i) const { return reinterpret_cast<grant_status_t*>(status_)[i]; }
  Offer look(u32 reference) const BH_REQUIRES(mutex_);
  i16 judge(Offer offer, u16 user, bool writable, bool sub_page_too) const;
  i16 pin(u32 reference, Offer& offer, u16 user, bool writable, bool sub_page_too) BH_REQUIRES(mutex_);
  void unpin(u32 reference, u16 bits) BH_REQUIRES(mutex_);
  i16 read_target(u32 reference, Offer offer, Access& access) const BH_REQUIRES(mutex_);
  i16 add_user(Active& active, u16 user, bool writable, bool sub_page_too) BH_REQUIRES(mutex_);
  i16 add_first(u32 reference, Active& active, u16 user, bool writable, bool sub_page_too) BH_REQUIRES(mutex_);
  void show_writing(u32 reference) BH_REQUIRES(mutex_);
  bool keeps_reserved(u32 version) const BH_REQUIRES(mutex_);
  void convert(u32 version) BH_REQUIRES(mutex_);

  const DomainConfig& config_;
  std::byte* const shared_;
  std::byte* const status_;
  const u32 max_frames_;
  Frames& guest_;
  DomainCounters& counters_;

  mutable Mutex mutex_;
  u32 version_ BH_GUARDED_BY(mutex_) = 1;
  u32 frames_ BH_GUARDED_BY(mutex_) = 1;
  std::vector<Active> active_ BH_GUARDED_BY(mutex_);
  u64 mapped_ BH_GUARDED_BY(mutex_) = 0;
};

}  // namespace bulkhead::abi::xen
