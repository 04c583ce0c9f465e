// What the Xen ABI needs of those around it: whoever makes a hypercall, the guest's frames, its vCPUs. The same for PV
// guests (frames are MFNs) and PVH guests (frames are GFNs), on every engine.
#pragma once
#include <array>
#include <cstddef>
#include <span>

#include "base/ints.h"

namespace bulkhead::abi::xen {

// The vCPU that makes a hypercall. On its thread, while the call is being answered.
class Caller {
 public:
  virtual ~Caller() = default;
  virtual unsigned vcpu() const = 0;
  // Memory by the caller's virtual addresses, checked as the guest kernel's own accesses. False: -EFAULT; a prefix may
  // have been copied.
  [[nodiscard]] virtual bool read(u64 gva, std::span<std::byte> out) = 0;
  [[nodiscard]] virtual bool write(u64 gva, std::span<const std::byte> in) = 0;
};

// What the vCPU does when it has its answer.
enum class After : u8 {
  kRun,
  kYield,  // let others run, then go on
  kBlock,  // wait for an event (Domain::may_run() says when)
  kDown,   // this vCPU has stopped itself (VCPUOP_down) until another one starts it
  kEnd,    // the zone is over (Vcpus::shutdown() was called)
};

// `value` goes into RAX: 0 or positive on success, else a negative Xen error number [xen/errno.h].
struct Answer {
  i64 value = 0;
  After after = After::kRun;
};

// What we do with a frame of the guest's.
enum class Hold : u8 { kRead, kWrite };

// The guest's pseudo-physical and machine memory. Any thread.
class Frames {
 public:
  virtual ~Frames() = default;
  // A frame of the guest's own ordinary RAM, for us to use until let_go() with the same arguments. A PV guest's cannot
  // leave it meanwhile, nor with kWrite become what the guest itself may not write (a page table). Its host address,
  // which is one for the life of the zone; nullptr: not the guest's to share, or already such a thing.
  virtual std::byte* hold(u64 frame, Hold use) = 0;
  virtual void let_go(u64 frame, Hold use) = 0;
  // The frame's page is written by us: translations of code on it are stale.
  virtual void note_written(u64 frame) = 0;
  // Places a page of ours (its offset in GuestMemory's memfd, page aligned) at a guest frame: XENMEM_add_to_physmap.
  // PVH only; negative Xen error number where it cannot be done.
  virtual i64 place(u64 frame, std::byte* page) = 0;
  // The guest's frame number of a page of ours (XenPages): PV's GNTTABOP_setup_table and get_status_frames.
  virtual u64 frame_of(const std::byte* our_page) = 0;
  // Ballooning. `frame` leaves the guest, its page is given back to the host; or comes back, zero-filled.
  virtual i64 release(u64 frame) = 0;
  virtual i64 populate(u64& frame) = 0;  // PV: picks a machine frame and returns it; PVH: fills this one
  virtual u64 current_pages() const = 0;
  virtual u64 maximum_pages() const = 0;
  virtual u64 maximum_frame() const = 0;  // XENMEM_maximum_ram_page, XENMEM_maximum_gpfn
  // A grant that the guest maps itself [xen/grant_table.h gnttab_map_grant_ref]: shows `frame`, which is held, at
  // `address` as `flags` (GNTMAP_*) say; takes it away there, which leaves what is at `replacement` (0: nothing), and
  // nobody has an old translation when it returns. Statuses are GNTST_*. The caller holds no lock.
  virtual i16 map_grant(Caller& caller, u64 frame, u64 address, u32 flags) = 0;
  virtual i16 unmap_grant(Caller& caller, u64 frame, u64 address, u32 flags, u64 replacement) = 0;
};

enum class ShutdownReason : u8 { kPowerOff = 0, kReboot = 1, kSuspend = 2, kCrash = 3, kWatchdog = 4 };

// The zone's vCPUs. Any thread.
class Vcpus {
 public:
  virtual ~Vcpus() = default;
  virtual unsigned count() const = 0;
  // An event became deliverable on `vcpu` (evtchn_upcall_pending is set), or one that it polls for arrived, or it was
  // brought up: if it waits it shall look again, if it runs it shall take its upcall soon.
  virtual void notify(unsigned vcpu) = 0;
  virtual void send_nmi(unsigned vcpu) = 0;
  // VCPUOP_initialise with the guest's vcpu_guest_context_t at `context`; 0 or a negative Xen error number.
  virtual i64 initialise(Caller& caller, unsigned vcpu, u64 context) = 0;
  virtual void shutdown(ShutdownReason reason) = 0;
};

}  // namespace bulkhead::abi::xen
