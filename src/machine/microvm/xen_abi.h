// Xen's ABI for a PVH guest: joins abi/xen to the partition, the guest's memory and the vCPU threads.
#pragma once
#include <functional>
#include <memory>

#include "abi/xen/domain.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "machine/machine.h"
#include "machine/microvm/guest_abi.h"
#include "machine/microvm/pvh_frames.h"

namespace bulkhead::machine {

class XenAbi final : public GuestAbi, private abi::xen::Vcpus {
 public:
  static constexpr u16 kDomid = 1;
  // Extra pages of GuestMemory, in this order.
  enum Page : u64 {
    kSharedInfo,
    kGrants,
    kStatus = kGrants + abi::xen::kGrantFrames,
    kStorePage = kStatus + abi::xen::kStatusFrames,
    kConsolePage,
    kPages
  };
  struct Ports {
    std::function<void(unsigned)> wake;  // the thread of a vCPU that waits in kWait or kDown
    std::function<void(Outcome)> finish;
    std::function<void(u32)> pulse_gsi;  // may be empty
  };
  // The guest's memory has kPages extra pages. References outlive us.
  XenAbi(const engine::CpuModel& model, unsigned vcpus, engine::Partition& partition, GuestMemory& memory,
         TimerService& timers, Ports ports);
  ~XenAbi() override;

  // Once, before the vCPUs run. Errors: the engine refuses what it offered.
  Result<void> start() { return domain_.start_engine_events(); }
  abi::xen::Domain& domain() { return domain_; }
  const abi::xen::Domain& domain() const { return domain_; }
  // The rings of xenstore and console, where the guest finds them once their parameters are set.
  std::byte* store_page() { return memory_.extra_page(kStorePage); }
  std::byte* console_page() { return memory_.extra_page(kConsolePage); }

  Next hypercall(unsigned vcpu, engine::HypercallExit& exit) override;
  bool msr(unsigned vcpu, engine::MsrExit& exit) override;
  bool may_run(unsigned vcpu) override { return domain_.may_run(vcpu); }
  void end_wait(unsigned vcpu) override { domain_.end_wait(vcpu); }

 private:
  class ExitCaller;
  abi::xen::XenPages pages() const;
  abi::xen::DomainConfig config(const engine::CpuModel& model, unsigned vcpus) const;
  unsigned count() const override { return vcpus_; }
  void notify(unsigned vcpu) override;
  void interrupt(unsigned vcpu);
  void send_nmi(unsigned vcpu) override { partition_.inject_nmi(vcpu); }
  i64 initialise(abi::xen::Caller& caller, unsigned vcpu, u64 context) override;
  void shutdown(abi::xen::ShutdownReason reason) override;

  const unsigned vcpus_;
  engine::Partition& partition_;
  GuestMemory& memory_;
  const Ports ports_;
  PvhFrames frames_;
  abi::xen::Domain domain_;
};

}  // namespace bulkhead::machine
