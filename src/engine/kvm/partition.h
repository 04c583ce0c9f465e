// A guest on KVM: its virtual machine, memory slots, vCPUs and interrupt routes, and the thread that looks after halts.
#pragma once
#include <condition_variable>
#include <memory>
#include <thread>
#include <vector>

#include "engine/kvm/chips.h"
#include "engine/kvm/slots.h"
#include "engine/kvm/vcpu.h"

namespace bulkhead::engine::kvm {

struct KvmOptions {
  enum class Xen : u8 { kAuto, kOn, kOff };
  Xen xen = Xen::kAuto;  // whether KVM itself intercepts Xen's hypercalls
  enum class Dirty : u8 { kLog, kRing };
  Dirty dirty = Dirty::kLog;  // how KVM tells which pages were written
  enum class Irqchip : u8 { kAuto, kSplit, kKernel };
  Irqchip irqchip = Irqchip::kAuto;  // whose IOAPIC and 8259s; kAuto: KVM's, where it has them
  enum class Events : u8 { kUser, kKernel };
  Events events = Events::kUser;  // who carries Xen's event channels and timers
};

class KvmPartition final : public Partition {
 public:
  // Errors: what KVM refuses, one line.
  static Result<std::unique_ptr<Partition>> create(const PartitionConfig& config, GuestMemory& memory, KvmHost host,
                                                   const KvmOptions& options);
  ~KvmPartition() override;

  Vcpu& vcpu(unsigned index) override;
  InterruptController* interrupt_controller() override { return chips_.get(); }
  XenEvents* xen_events() override { return events_.get(); }
  void set_extint(bool asserted) override;
  void set_extint_source(ExtIntSource* source) override { vm_.extint_source = source; }
  void inject_nmi(unsigned vcpu) override;
  void inject_direct(unsigned vcpu, u8 vector) override;
  u64 guest_tsc() const override;
  std::vector<u8> hypercall_code() const override;
  void set_eoi_handler(std::function<void(u8 vector)> handler) override { vm_.eoi_handler = std::move(handler); }
  void send(Msi message) override;
  Result<std::unique_ptr<Registration>> notify_on_write(const WritePlace& place, int eventfd) override;
  Result<std::unique_ptr<InterruptRegistration>> interrupt_on_event() override;
  bool registrations_are_cheap() const override { return true; }
  bool show_page(Gpa at, const std::byte* page) override { return slots_.show(at, page); }
  Result<void> track_writes(bool on) override;
  Result<std::vector<u64>> take_written() override;

 private:
  KvmPartition(KvmHost host, UniqueFd fd, CpuModel model, GuestMemory& memory);
  Result<void> set_up(const PartitionConfig& config, const KvmOptions& options);
  Result<void> enable(u32 capability, u64 argument, const char* what);
  Result<void> set_up_xen(bool intercept, bool events);
  Result<void> filter_msrs(bool kvm_abi);
  void look_after_halts();

  Result<void> set_up_interrupts(KvmOptions::Irqchip wanted);
  Result<void> set_up_rings();
  void harvest();

  Vm vm_;
  MemorySlots slots_;
  std::unique_ptr<KernelChips> chips_;  // where they are KVM's
  std::mutex ring_mutex_;               // rings are read by one thread at a time
  std::vector<std::unique_ptr<KvmVcpu>> vcpus_;
  std::unique_ptr<KvmXenEvents> events_;  // where they are KVM's
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false, window_wanted_ = false;  // under mutex_
  std::thread watcher_;
};

}  // namespace bulkhead::engine::kvm
