// A vCPU on KVM: KVM_RUN, and what of its exits is the machine's to answer.
#pragma once
#include <memory>
#include <optional>

#include "base/sync.h"
#include "engine/kvm/kvm_api.h"
#include "engine/kvm/vm.h"
#include "engine/kvm/xen.h"

namespace bulkhead::engine::kvm {

class KvmVcpu final : public Vcpu {
 public:
  // Errors: KVM makes no vCPU, or refuses the CPU model.
  static Result<std::unique_ptr<KvmVcpu>> create(Vm& vm, unsigned index);
  ~KvmVcpu() override;
  KvmVcpu(const KvmVcpu&) = delete;

  Exit& run() override;
  void kick() override;
  VcpuState state() override;
  Result<void> set_state(const VcpuState& state) override;
  bool read_virtual(Gva at, std::span<std::byte> out) override;
  bool write_virtual(Gva at, std::span<const std::byte> in) override;
  std::string describe() override;
  // Where the guest could write to [at, at+length), if that lies in one piece. As write_virtual().
  std::optional<Gpa> translate(Gva at, std::size_t length);
  const telemetry::CounterSet& counters() const override { return counters_; }

  int fd() const { return fd_.get(); }
  void poke();                    // a vCPU that runs looks at what we want of it; nobody above hears of it. Any thread
  void inject_direct(u8 vector);  // any thread
  void want(const XenVcpuAttribute& attribute);  // from its next entry on. Any thread
  // KVM does not tell when a vCPU halts for good, so now and then it is asked. Pokes a vCPU that has been in KVM_RUN
  // since the last call. True: it also waits for a moment in which interrupts are on. One thread.
  bool look_after();
  bool wants_window() const { return direct_waits_.load(std::memory_order_relaxed); }
  // MSRs of `candidates` that this vCPU has.
  std::vector<u32> readable_msrs(std::span<const u32> candidates);
  void learn_tsc_offset();
  // Hands over what the dirty ring holds; how many entries. One thread.
  u64 take_ring(const std::function<void(u32 slot, u64 page)>& take);

 private:
  enum class Owed : u8 { kNothing, kPort, kMmio, kMsr, kXenCall, kPortCall };
  enum class Step : u8 { kGoOn, kExit };
  KvmVcpu(Vm& vm, unsigned index, UniqueFd fd, kvm_run* run);
  Result<void> set_up();
  void enter_thread();

  // vcpu.cc: running
  Step enter();
  Step interrupted(bool kicked);
  bool halted_for_good();
  bool take_wants();
  void offer_extint();
  void offer_direct();
  bool deliver_direct(u8 vector);
  Step fail_run(int error);

  // exits.cc: from kvm_run and back
  Step exited();
  Step port_exit();
  Step port_call();
  Step mmio_exit();
  Step msr_exit(bool write);
  Step xen_exit();
  Step failure(std::string what);
  Step take_answer();
  Step port_piece();
  Step mmio_piece();

  // vcpu_state.cc
  Result<void> get_all(VcpuState& out);
  Result<void> get_msrs(std::vector<MsrValue>& out);
  Result<void> set_registers(const VcpuState& state);
  Result<void> set_special_registers(const VcpuState& state);
  Result<void> set_vector_state(const VcpuState& state);
  Result<void> set_msrs(const VcpuState& state);
  Result<void> set_msr(u32 index, u64 value);
  bool set_tsc(u64 value);
  Result<void> set_clock(const VcpuState& state);
  Result<void> set_lapic(const VcpuState& state);
  void expect_eois(const VcpuState& state);
  Result<void> set_events(const VcpuState& state);
  Result<void> call(unsigned long request, void* argument, const char* what);

  const kvm_sregs& special();  // of the vCPU as it stands
  template <class Access>
  bool each_page(Gva at, std::size_t length, bool write, Access access);

  Vm& vm_;
  const unsigned index_;
  const UniqueFd fd_;
  kvm_run* const run_;
  Exit exit_ = KickedExit{};
  Owed owed_ = Owed::kNothing;
  unsigned piece_ = 0, piece_bytes_ = 0;  // of an access that comes to the machine in several exits
  bool incomplete_ = false;               // KVM has yet to complete an instruction
  bool look_halted_ = false, shut_down_ = false, failed_ = false, thread_ready_ = false;
  kvm_dirty_gfn* ring_ = nullptr;
  u64 ring_next_ = 0;
  std::optional<kvm_sregs> special_;
  u64 shown_tsc_ = 0, shown_clock_ = 0;  // as state() has told last
  std::optional<u8> given_;              // the 8259's vector that KVM has and the vCPU may not: KVM shows it to nobody

  std::atomic<bool> kicked_{false}, check_halt_{false}, direct_waits_{false};
  std::atomic<int> direct_{-1};
  std::atomic<bool> wants_something_{false};
  Mutex wants_mutex_;
  std::vector<XenVcpuAttribute> wants_ BH_GUARDED_BY(wants_mutex_);
  std::atomic<int> thread_{0};  // that is within KVM_RUN, or 0
  std::atomic<u64> entries_{0};
  u64 entries_seen_ = 0;  // look_after()'s
  mutable telemetry::CounterSet counters_;
};

// The signal that ends a KVM_RUN; its handler does nothing.
void install_kick_signal();

}  // namespace bulkhead::engine::kvm
