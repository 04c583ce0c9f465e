// A vCPU of the built-in engine: the loop around a block runner that attends to events, halts and the machine's
// answers.
#pragma once
#include <memory>
#include <optional>

#include "base/sync.h"
#include "engine/dbt/cpu/block_runner.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/deprivileged.h"

namespace bulkhead::engine::dbt {

class DbtVcpu final : public Vcpu {
 public:
  enum class Mode : u8 { kInterpreter, kTranslator };
  // `cpu` is owned by `shared`, as are its LAPIC and state; both outlive us.
  DbtVcpu(Cpu& cpu, std::unique_ptr<BlockRunner> runner, Mode mode, EmulatedRegistrations& registrations);
  ~DbtVcpu() override;

  Exit& run() override;
  void kick() override;
  VcpuState state() override;
  Result<void> set_state(const VcpuState& state) override;
  bool read_virtual(Gva at, std::span<std::byte> out) override { return cpu_.try_copy_in(at.value, out); }
  bool write_virtual(Gva at, std::span<const std::byte> in) override { return cpu_.try_copy_out(at.value, in); }
  std::string describe() override;
  const telemetry::CounterSet& counters() const override;

  // From now on the guest has no privilege and `guest` handles its traps. Before the first run().
  void set_deprivileged(DeprivilegedGuest& guest, std::span<const std::unique_ptr<DbtVcpu>> all);
  void signal_attention() { cpu_.lapic->signal(kPendingAttention); }  // any thread
  // Another vCPU's thread asks for a TLB flush, then waits until no guest instruction can use an old entry any more.
  void request_flush();
  void wait_for_flush() const;
  void wait_for_requests() const;  // the same for requests of SharedState

 private:
  void enter_thread();
  void run_to_exit();
  StepResult run_until_exit();
  StepResult run_guest();
  void flush_if_asked();
  // Waits until the guest is not running here, or `open` is false.
  template <class Open>
  void wait_outside(Open open) const;
  std::optional<StepResult> attend();
  std::optional<StepResult> deliver_injected();
  void refresh_counters() const;

  // vcpu_state.cc
  void save_msrs(VcpuState& out);
  Result<void> check(const VcpuState& state) const;
  Result<void> load_msrs(const VcpuState& state);
  void load_registers(const VcpuState& state);
  void load_tsc(u64 value);
  Result<void> load_lapic(const VcpuState& state);
  void load_events(const VcpuState& state);

  Cpu& cpu_;
  EmulatedRegistrations& registrations_;
  DeprivilegedGuest* guest_ = nullptr;
  std::unique_ptr<DbtDeprivilegedCpu> view_;  // for `guest_`
  std::atomic<bool> in_guest_{false}, flush_wanted_{false};
  const Mode mode_;
  std::unique_ptr<BlockRunner> runner_;
  bool thread_ready_ = false;
  bool owed_ = false;       // the exit handed out needs its answer taken
  bool shut_down_ = false;  // triple fault: nothing runs until the state is set anew
  u64 shown_tsc_ = 0;       // what the last state() said
  // Events that set_state() brought and that no bit of the state can hold.
  std::optional<Fault> injected_fault_;
  std::optional<u8> injected_interrupt_;
  std::atomic<u64> halts_{0}, events_{0}, traps_{0};
  mutable Mutex counters_mutex_;
  mutable telemetry::CounterSet counters_;
};

}  // namespace bulkhead::engine::dbt
