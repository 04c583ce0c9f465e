#include "engine/dbt/vcpu.h"

#include <sys/prctl.h>

#include <thread>

#include "engine/dbt/emit/translator.h"
#include "engine/dbt/interpreter_runner.h"
#include "engine/dbt/simd/host_fault.h"

namespace bulkhead::engine::dbt {
namespace {

enum CounterIndex : std::size_t { kHalts, kEvents, kTraps, kFirstOfRunner };
const std::vector<std::string_view> kInterpreterCounters = {"halts", "events_taken", "traps",
                                                            "instructions_interpreted"};
const std::vector<std::string_view> kTranslatorCounters = {"halts",
                                                           "events_taken",
                                                           "traps",
                                                           "blocks_translated",
                                                           "instructions_translated",
                                                           "block_lookups",
                                                           "block_links",
                                                           "misses_interpreted",
                                                           "interpreter_calls",
                                                           "invalidations",
                                                           "cache_flushes",
                                                           "host_faults",
                                                           "steps_interpreted",
                                                           "tlb_fills",
                                                           "loop_rounds_skipped",
                                                           "stack_windows_missed",
                                                           "jump_cache_flushes"};

void count(std::atomic<u64>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

bool owes_answer(const Exit& exit) {
  return std::holds_alternative<PortExit>(exit) || std::holds_alternative<MmioExit>(exit) ||
         std::holds_alternative<MsrExit>(exit) || std::holds_alternative<HypercallExit>(exit);
}

}  // namespace

DbtVcpu::DbtVcpu(Cpu& cpu, std::unique_ptr<BlockRunner> runner, Mode mode, EmulatedRegistrations& registrations)
    : cpu_{cpu},
      registrations_{registrations},
      mode_{mode},
      runner_{std::move(runner)},
      counters_{mode == Mode::kInterpreter ? kInterpreterCounters : kTranslatorCounters} {}

DbtVcpu::~DbtVcpu() = default;

void DbtVcpu::kick() { cpu_.lapic->signal(kPendingKick); }

// Timers that end a halt are to end it on time: the default slack would add 50 microseconds.
void DbtVcpu::enter_thread() {
  if (thread_ready_) return;
  thread_ready_ = true;
  ::prctl(PR_SET_TIMERSLACK, 1);
  ensure_fault_stack();
}

Exit& DbtVcpu::run() {
  enter_thread();
  do run_to_exit();
  while (registrations_.takes(cpu_.exit));
  return cpu_.exit;
}

void DbtVcpu::run_to_exit() {
  if (owed_) cpu_.take_answer();
  owed_ = false;
  cpu_.exit = KickedExit{};
  if (run_until_exit() == StepResult::kShutdown) shut_down_ = true;
  cpu_.spill_fpu();
  if (shut_down_) cpu_.exit = ShutdownExit{};
  owed_ = owes_answer(cpu_.exit);
}

// An instruction that was answered is completed before anything else happens, or an interrupt handler would find its
// answers.
StepResult DbtVcpu::run_until_exit() {
  if (shut_down_) return StepResult::kShutdown;
  for (;;) {
    if (cpu_.io_log.done == 0)
      if (const auto end = attend()) return *end;
    const StepResult result = guest_ == nullptr ? runner_->run(cpu_) : run_guest();
    cpu_.spill_fpu();
    if (result == StepResult::kTrap) {
      count(traps_);
      guest_->trap(*view_, cpu_.trap);
      continue;
    }
    if (result == StepResult::kExit || result == StepResult::kShutdown) return result;
    if (result == StepResult::kHalt) count(halts_);
  }
}

// With the door open for others who ask for a TLB flush: either we see their request here, or they see us inside.
StepResult DbtVcpu::run_guest() {
  in_guest_.store(true, std::memory_order_seq_cst);
  StepResult result = StepResult::kBranch;
  if (cpu_.s.pending.load(std::memory_order_seq_cst) == 0) result = runner_->run(cpu_);
  in_guest_.store(false, std::memory_order_release);
  return result;
}

void DbtVcpu::set_deprivileged(DeprivilegedGuest& guest, std::span<const std::unique_ptr<DbtVcpu>> all) {
  guest_ = &guest;
  view_ = std::make_unique<DbtDeprivilegedCpu>(cpu_, all);
  signal_attention();
}

void DbtVcpu::request_flush() {
  flush_wanted_.store(true, std::memory_order_seq_cst);
  cpu_.s.pending.fetch_or(kPendingFlush, std::memory_order_seq_cst);  // a sleeping vCPU needs no waking for it
}

void DbtVcpu::wait_for_flush() const {
  wait_outside([this] { return flush_wanted_.load(std::memory_order_acquire); });
}

void DbtVcpu::wait_for_requests() const {
  wait_outside([this] { return (cpu_.s.pending.load(std::memory_order_seq_cst) & kPendingInvalidate) != 0; });
}

template <class Open>
void DbtVcpu::wait_outside(Open open) const {
  for (unsigned spins = 0; in_guest_.load(std::memory_order_seq_cst) && open(); ++spins)
    if (spins > 200) std::this_thread::yield();
}

void DbtVcpu::flush_if_asked() {
  if (!(cpu_.s.pending.load(std::memory_order_acquire) & kPendingFlush)) return;
  cpu_.s.pending.fetch_and(~u32{kPendingFlush}, std::memory_order_acq_rel);
  flush_wanted_.store(false, std::memory_order_release);
  cpu_.flush_tlb(true);
}

// What is pending, and halting. A value ends run(); nullopt: execute.
std::optional<StepResult> DbtVcpu::attend() {
  CpuState& s = cpu_.s;
  if (const auto end = deliver_injected()) return end;
  for (;;) {
    if (s.pending.load(std::memory_order_acquire) & kPendingKick) {
      s.pending.fetch_and(~u32{kPendingKick}, std::memory_order_acq_rel);
      cpu_.exit = KickedExit{};
      return StepResult::kExit;
    }
    flush_if_asked();
    if (s.pending.load(std::memory_order_acquire) & kPendingAttention) {
      s.pending.fetch_and(~u32{kPendingAttention}, std::memory_order_acq_rel);
      guest_->attention(*view_);
    }
    if (s.pending.load(std::memory_order_acquire) != 0) {
      const auto taken = cpu_.take_pending_event();
      if (taken == StepResult::kExit || taken == StepResult::kShutdown) return taken;
      if (taken) count(events_);
    }
    if (!s.halted) return std::nullopt;
    if (s.pending.load(std::memory_order_acquire) != 0) continue;
    if (!(s.rflags & kIf) && !cpu_.lapic->waiting_for_sipi()) {
      cpu_.exit = HaltExit{};
      return StepResult::kExit;
    }
    cpu_.lapic->sleep();
  }
}

std::optional<StepResult> DbtVcpu::deliver_injected() {
  StepResult result = StepResult::kBranch;
  if (const auto fault = std::exchange(injected_fault_, std::nullopt))
    result = cpu_.deliver(*fault);
  else if (const auto vector = std::exchange(injected_interrupt_, std::nullopt))
    result = cpu_.deliver_external(*vector);
  if (result == StepResult::kShutdown || result == StepResult::kExit) return result;
  return std::nullopt;
}

const telemetry::CounterSet& DbtVcpu::counters() const {
  Lock lock{counters_mutex_};
  refresh_counters();
  return counters_;
}

void DbtVcpu::refresh_counters() const {
  const auto show = [this](std::size_t index, u64 value) { counters_[index].add(value - counters_[index].value()); };
  show(kHalts, halts_.load(std::memory_order_relaxed));
  show(kEvents, events_.load(std::memory_order_relaxed));
  show(kTraps, traps_.load(std::memory_order_relaxed));
  if (mode_ == Mode::kInterpreter)
    return show(kFirstOfRunner, static_cast<const InterpreterRunner&>(*runner_).instructions());
  const TranslatorCounters& t = translator_counters(*runner_);
  std::size_t index = kFirstOfRunner;
  for (const std::atomic<u64>* counter :
       {&t.blocks, &t.instructions, &t.lookups, &t.links, &t.misses_interpreted, &t.interpreter_calls, &t.invalidations,
        &t.flushes, &t.host_faults, &t.steps, &t.fills, &t.skipped_rounds, &t.windows_missed, &t.jump_flushes})
    show(index++, counter->load(std::memory_order_relaxed));
}

}  // namespace bulkhead::engine::dbt
