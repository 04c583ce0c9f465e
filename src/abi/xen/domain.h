// One guest as Xen's ABI sees it: event channels, grant table, clocks, and the hypercalls that PV and PVH guests share.
// Source: Xen's public headers (libxen-dev 4.17). A guest's mistake is an error number and a counter.
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "abi/xen/ports.h"
#include "base/clock.h"
#include "base/ints.h"
#include "base/result.h"
#include "engine/xen_events.h"
#include "telemetry/counter.h"

namespace bulkhead::abi::xen {

enum class GuestKind : u8 { kPv, kPvh };

struct MapEntry {
  u64 start = 0, size = 0;  // bytes
  u32 type = 1;             // E820 [spec/e820.h]
};

inline constexpr unsigned kMaxVcpus = 32;  // as many as shared_info has a vcpu_info for
inline constexpr unsigned kGrantFrames = 64, kStatusFrames = 8;

// What `version` says: see `xen_version` in /sys/hypervisor.
struct DomainConfig {
  GuestKind kind = GuestKind::kPvh;
  u16 domid = 1;
  std::array<u8, 16> uuid{};
  unsigned vcpus = 1;       // 1..kMaxVcpus
  u64 vm_assists = 0;       // VMASST_TYPE_*, a bit each: those that the domain builder enables
  bool fifo_events = true;  // false: only the 2-level ABI
  // Whoever carries events and timers with us, below hypercalls; then fifo_events is false. Null: nobody. Outlives the
  // Domain.
  engine::XenEvents* engine_events = nullptr;
  unsigned max_grant_version = 2;
  u64 tsc_hz = 1'000'000'000;
  // The guest's TSC now, the same on all vCPUs. Null: the host's. Any thread.
  std::function<u64()> guest_tsc;
  // What CONSOLEIO_write says, already bounded in rate. Null: dropped. On the vCPU's thread.
  std::function<void(std::string_view)> console;
  // Nanoseconds for which vCPU `n`'s thread was ready but not running, since whenever. On that thread. Null: from
  // /proc/thread-self/schedstat.
  std::function<u64(unsigned)> steal_ns;
  std::vector<MapEntry> memory_map;  // XENMEM_memory_map; empty: refused
};

// Pages of ours that the guest sees, page aligned, zero-filled, alive as long as the Domain.
struct XenPages {
  std::byte* shared_info = nullptr;
  std::span<std::byte> grant_frames;   // 1..kGrantFrames pages: the most that the grant table can grow to
  std::span<std::byte> status_frames;  // pages for version 2: one for each 8 grant frames, rounded up
};

// Hypercalls of one kind of guest only (PV's mmu_update, ...). Asked first for each number and sub-operation, also
// within a multicall.
class GuestCalls {
 public:
  virtual ~GuestCalls() = default;
  // nullopt: not mine, the Domain answers.
  virtual std::optional<Answer> hypercall(Caller& caller, u64 number, const std::array<u64, 6>& args) = 0;
};

struct HypercallStatistics {
  u64 number = 0;
  std::string name;  // as in xen.h, "mmu_update"; unknown ones "hypercall_<number>" up to 63, above "hypercall_other"
  u64 count = 0, sum_ns = 0, p50_ns = 0, p90_ns = 0, p99_ns = 0;
};

enum class Runstate : u8 { kRunning = 0, kRunnable = 1, kBlocked = 2, kOffline = 3 };

// How a PVH vCPU takes its upcall.
struct Upcall {
  enum class How : u8 {
    kNone,
    kLapic,   // `vector` goes to the vCPU's LAPIC, edge-triggered (HVMOP_set_evtchn_upcall_vector)
    kDirect,  // `vector` is injected past the LAPIC (HVM_PARAM_CALLBACK_IRQ, type vector)
    kGsi,     // `gsi` is asserted while vCPU 0's upcall is pending (HVM_PARAM_CALLBACK_IRQ, type GSI)
  } how = How::kNone;
  u8 vector = 0;
  u32 gsi = 0;
};

class EventHost;
class GrantHost;
struct DomainParts;  // domain_parts.h: for this room only

class Domain {
 public:
  // All references outlive the Domain. vCPU 0 is up, the others are down.
  Domain(DomainConfig config, const XenPages& pages, Frames& frames, Vcpus& vcpus, TimerService& timers);
  ~Domain();
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;
  const DomainConfig& config() const;
  void set_guest_calls(GuestCalls* calls);  // before the vCPUs run

  // ---- hypercalls: on the calling vCPU's thread. Unknown numbers give -ENOSYS and are counted.
  Answer hypercall(Caller& caller, u64 number, const std::array<u64, 6>& args);
  std::vector<HypercallStatistics> hypercall_statistics() const;  // those that were called; any thread
  // What guests did wrong, by kind, e.g. "bad_pointers", "fifo_corrupt_words". Any thread.
  const telemetry::CounterSet& counters() const;

  // ---- vCPUs. Any thread unless said otherwise.
  bool upcall_pending(unsigned vcpu) const;  // evtchn_upcall_pending and not evtchn_upcall_mask
  // Access to vcpu_info's first two bytes, wherever it lies now. Atomic, sequentially consistent.
  bool upcall_masked(unsigned vcpu) const;
  void set_upcall_masked(unsigned vcpu, bool masked);
  void set_upcall_pending(unsigned vcpu, bool pending);
  std::byte* vcpu_info(unsigned vcpu) const;  // sizeof(vcpu_info_t), aligned; changes when the guest registers one
  void set_cr2(unsigned vcpu, u64 linear);    // vcpu_info.arch.cr2, for PV page faults
  // After After::kBlock: whether what it waits for has come (an upcall it can take, a polled port, the timeout). When
  // true the wait is over and forgotten. A vCPU that is down may not run.
  bool may_run(unsigned vcpu);
  void end_wait(unsigned vcpu);                 // it goes on although nothing has come, which block and poll allow
  bool online(unsigned vcpu) const;             // VCPUOP_up, VCPUOP_down
  void set_online(unsigned vcpu, bool online);  // for vCPUs started otherwise (INIT-SIPI)
  Upcall upcall(unsigned vcpu) const;

  // Before the vCPUs run, where config().engine_events is there. Errors: the engine's.
  Result<void> start_engine_events();

  // ---- time
  Nanoseconds system_time() const;  // the guest's system time
  void update_time(unsigned vcpu);  // publishes vcpu_time_info anew; after a pause
  void update_wallclock();          // publishes the wall clock from the host's
  // The machine says kBlocked before it waits and kRunning after.
  void set_runstate(unsigned vcpu, Runstate state);
  // Writes what the caller's registered areas (runstate, time) are owed; hypercall() does it by itself, the machine
  // after a wait. Cheap when there is nothing.
  void refresh(Caller& caller);

  // ---- HVM parameters, as domain building sets them (HVM_PARAM_STORE_PFN, ...).
  u64 hvm_param(u32 index) const;
  void set_hvm_param(u32 index, u64 value);
  // VMASST_TYPE_* that the guest has enabled, one bit each.
  u64 vm_assists() const;
  // A global or per-vCPU VIRQ occurred: VIRQ_DEBUG, VIRQ_TIMER, ...
  void raise_virq(unsigned vcpu, u32 virq);

  EventHost& events();
  GrantHost& grants();

 private:
  std::unique_ptr<DomainParts> parts_;
};

// Domain 0's end of event channels.
class EventHost {
 public:
  // The host's end of one channel: it is closed on destruction, and the guest's port waits for a new binding.
  class Binding {
   public:
    virtual ~Binding() = default;
    virtual void notify() = 0;  // any thread; nothing happens when the guest has closed its end
  };
  virtual ~EventHost() = default;
  // Connects to a port that the guest allocated for domain 0. `on_event` runs on the thread of the vCPU that sends, one
  // call at a time, must not block, and may destroy the binding; otherwise the binding's destruction waits for it, so
  // destroy it without a lock that on_event takes. nullptr: no such unbound port for domain 0. Any thread.
  virtual std::unique_ptr<Binding> bind(u32 guest_port, std::function<void()> on_event) = 0;
  // A port in the guest that waits for domain 0, as the domain builder makes them for console and xenstore. Before the
  // vCPUs run. Errors: no port is left.
  virtual Result<u32> alloc_unbound_for_guest() = 0;
};

// Domain 0's use of the guest's grants, by host address. Any thread.
class GrantHost {
 public:
  virtual ~GrantHost() = default;
  // The page that `reference` grants to domain 0, pinned (GTF_reading, GTF_writing) until unmap(); the same reference
  // may be mapped more than once. nullptr: no such grant, not granted to domain 0, read-only where `writable` is asked,
  // not the guest's page, sub-page or transitive.
  virtual std::byte* map(u32 reference, bool writable) = 0;
  // Once for each successful map() with the same arguments; writable: tells the engine that the page was written.
  virtual void unmap(u32 reference, bool writable) = 0;
  virtual u64 mapped() const = 0;  // map() calls without their unmap()
  // For domain builders: makes entry `reference` grant `frame` to domain 0 (console and xenstore, version 1 entries).
  virtual void grant_for_guest(u32 reference, u64 frame) = 0;
};

}  // namespace bulkhead::abi::xen
