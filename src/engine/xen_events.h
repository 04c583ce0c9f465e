// What an engine can do of Xen's event channels by itself, so that timers and IPIs of a guest that was promised Xen's
// ABI make no exit. It shares the guest's own words with us (shared_info, vcpu_info, the 2-level ABI), and changes them
// as we do: atomically. So whoever raises an event there needs only say look().
#pragma once
#include <cstddef>
#include <optional>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::engine {

class XenEvents {
 public:
  virtual ~XenEvents() = default;
  // Before any vCPU runs: a page of GuestMemory's, and what the guest's system time is now, in nanoseconds. From then
  // on the engine writes each vCPU's time into its vcpu_info. Errors: the host refuses.
  virtual Result<void> start(std::byte* shared_info, u64 system_time) = 0;
  // Where the vCPU's vcpu_info lies, within one page of GuestMemory, from its next entry on. Any thread.
  virtual void set_vcpu_info(unsigned vcpu, std::byte* info) = 0;
  // The vCPU's single-shot timer is the engine's and raises this port; 0: it is not the engine's. From its next entry
  // on. Any thread.
  virtual void set_timer(unsigned vcpu, u32 port) = 0;
  // A guest that sends to `port` raises it on this vCPU; nullopt: its sends are ours to answer. Any thread.
  virtual void set_ipi(u32 port, std::optional<unsigned> vcpu) = 0;
  // The interrupt for an upcall of any vCPU, past the LAPIC; 0: none. Any thread.
  virtual void set_upcall(u8 vector) = 0;
  // The same by the vCPU's LAPIC, for what the engine raises itself. Any thread.
  virtual void set_lapic_upcall(unsigned vcpu, u8 vector) = 0;
  // The engine keeps vcpu_time_info, or vcpu_runstate_info, of this vCPU up to date there, at an address by its present
  // page tables. On its thread, between two entries. False: it cannot there, and it is ours to do.
  virtual bool set_time_area(unsigned vcpu, Gva at) = 0;
  virtual bool set_runstate_area(unsigned vcpu, Gva at) = 0;
  // Whether it marks the latter while it writes (VMASST_TYPE_runstate_update_flag). Any thread.
  virtual void set_runstate_flag(bool on) = 0;
  // An upcall of this vCPU became pending by our hand. Any thread.
  virtual void look(unsigned vcpu) = 0;
};

}  // namespace bulkhead::engine
