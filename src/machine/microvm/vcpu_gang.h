// The vCPU threads of a machine: each runs its vCPU, answers its exits from the buses, and all end together.
#pragma once
#include <condition_variable>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "base/sync.h"
#include "bus/bus.h"
#include "engine/engine.h"
#include "machine/microvm/exit_meter.h"
#include "machine/microvm/guest_abi.h"
#include "machine/microvm/microvm.h"

namespace bulkhead::machine {

// One thread per vCPU, named "bh-vcpu-N". The first outcome that anybody reports is the machine's.
class VcpuGang {
 public:
  // All outlive us.
  VcpuGang(engine::Partition& partition, unsigned vcpus, Bus& ports, Bus& mmio);
  // Answers hypercalls and MSRs; outlives us. Before run(). Without one the guest has no ABI.
  void set_abi(GuestAbi* abi) { abi_ = abi; }
  // A vCPU that waits for may_run() shall look again. Any thread; never blocks for long.
  void wake(unsigned index);
  VcpuGang(const VcpuGang&) = delete;
  VcpuGang& operator=(const VcpuGang&) = delete;

  // Blocks until there is an outcome and every thread has ended. Once.
  Outcome run();
  // Ends run() with this outcome, unless it has one already. Any thread, also a vCPU's from within an access; does not
  // block. Before run() it makes run() return at once.
  void finish(Outcome outcome);

  const ExitMeter& meter() const { return meter_; }
  // Exits that no part of the machine knew an answer to. Any thread.
  enum Counter : std::size_t { kUnknownMsrRead, kUnknownMsrWrite, kUnknownHypercall };
  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  struct Handler;
  enum class Next : u8 { kRun, kWait, kEnd };
  // Where a vCPU waits that waits in a hypercall.
  struct Waiter {
    Mutex mutex;
    std::condition_variable_any changed;
    bool woken BH_GUARDED_BY(mutex) = false;
  };

  void run_vcpu(unsigned index);
  Next answer(unsigned index, engine::Exit& exit);
  Next halted(unsigned index);
  Next kicked(unsigned index);
  void wait_a_little();
  Next wait_for_abi(unsigned index, bool only_until_may_run);
  void set_inert(unsigned index, bool inert);
  void check_all_inert();
  void kick_others(unsigned index);
  bool ended();

  engine::Partition& partition_;
  const unsigned vcpus_;
  Bus& ports_;
  Bus& mmio_;
  GuestAbi* abi_ = nullptr;
  std::vector<std::unique_ptr<Waiter>> waiters_;
  const u64 ns_per_tick_;  // of the host's TSC, 32.32 fixed point
  ExitMeter meter_;
  telemetry::CounterSet counters_;

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<Outcome> outcome_ BH_GUARDED_BY(mutex_);
  std::vector<bool> inert_ BH_GUARDED_BY(mutex_);  // outside of run(), and not able to go on by itself
};

}  // namespace bulkhead::machine
