// The LAPIC's timer. Deadlines are kept in host TSC ticks; see LapicBus for who looks at them.
#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {

using namespace lapic_reg;

namespace {
// A periodic timer faster than this would keep a translated guest from getting anything else done.
constexpr u64 kShortestPeriodNs = 200'000;
}  // namespace

// Divide configuration, bits 3, 1, 0: 2, 4, ... 128, 1 [SDM-3A "Divide Configuration Register"].
u64 Lapic::timer_unit() const {
  const u32 divide = reg(kDivide);
  const u32 code = (divide & 3) | ((divide & 8) >> 1);
  return u64{1} << ((code + 1) & 7);
}

void Lapic::arm(u64 deadline) {
  deadline_.store(deadline, std::memory_order_seq_cst);
  if (deadline == kNever) return;
  fire_if_due(bus_.host_tsc());
  armed_ = deadline_.load(std::memory_order_relaxed);
}

void Lapic::start_count(u32 count) {
  if (count == 0) return arm(kNever);
  period_ = bus_.ticks_of(u64{reg(kInitialCount)} * timer_unit());
  arm(bus_.host_tsc() + bus_.ticks_of(u64{count} * timer_unit()));
}

u32 Lapic::current_count() const {
  const u64 deadline = deadline_.load(std::memory_order_relaxed);
  if (deadline == kNever || timer_mode() == TimerMode::kDeadline) return 0;
  const u64 now = bus_.host_tsc();
  if (deadline <= now) return 0;
  return static_cast<u32>(bus_.nanoseconds_of(deadline - now) / timer_unit());
}

void Lapic::set_deadline(u64 guest_tsc) {
  tsc_deadline_ = guest_tsc;
  if (guest_tsc == 0) return arm(kNever);
  const u64 now = bus_.host_tsc();
  const u64 guest_now = now + state_.tsc_offset;
  const u64 ahead = guest_tsc > guest_now ? guest_tsc - guest_now : 0;
  arm(ahead < kNever - 1 - now ? now + ahead : kNever - 1);
}

void Lapic::tsc_offset_changed() {
  const Change change{*this};
  if (timer_mode() == TimerMode::kDeadline && tsc_deadline_ != 0) set_deadline(tsc_deadline_);
}

// A periodic timer that fell behind skips what it missed: the IRR could hold only one of them anyway.
void Lapic::fire_if_due(u64 now) {
  const u64 deadline = deadline_.load(std::memory_order_relaxed);
  if (deadline > now) return;
  u64 next = kNever;
  if (timer_mode() == TimerMode::kPeriodic) {
    const u64 shortest = bus_.ticks_of(kShortestPeriodNs);
    const u64 period = period_ > shortest ? period_ : shortest;
    next = now - deadline < period ? deadline + period : now + period - (now - deadline) % period;
  }
  deadline_.store(next, std::memory_order_seq_cst);
  tsc_deadline_ = 0;
  if (const u32 entry = reg(kLvtTimer); !(entry & kLvtMasked)) accept_vector(static_cast<u8>(entry), false);
}

void Lapic::check_timer(u64 now) {
  if (deadline_.load(std::memory_order_seq_cst) > now) return;
  const Change change{*this};
  fire_if_due(now);
}

// ---- the timer thread's side -----------------------------------------------------------------------------------

void LapicBus::timer_armed(u64 deadline) {
  if (deadline >= timer_wake_.load(std::memory_order_seq_cst)) return;  // it looks before that by itself
  timer_sequence_.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(timer_sequence_);
}

void LapicBus::run_timers() {
  const u64 now = host_tsc();
  for (Lapic* lapic : lapics_)
    if (!lapic->sleeping_.load(std::memory_order_seq_cst)) lapic->check_timer(now);
}

// While the deadlines are being gathered timer_wake_ is ~0, so that whoever arms one meanwhile bumps the sequence.
bool LapicBus::wait_for_timers() {
  const u32 sequence = timer_sequence_.load(std::memory_order_seq_cst);
  timer_wake_.store(Lapic::kNever, std::memory_order_seq_cst);
  u64 first = Lapic::kNever;
  for (Lapic* lapic : lapics_) {
    if (lapic->sleeping_.load(std::memory_order_seq_cst)) continue;
    const u64 deadline = lapic->deadline_.load(std::memory_order_seq_cst);
    if (deadline < first) first = deadline;
  }
  timer_wake_.store(first, std::memory_order_seq_cst);
  if (timer_stop_.load(std::memory_order_seq_cst)) return false;
  const u64 now = host_tsc();
  if (first == Lapic::kNever)
    futex_wait(timer_sequence_, sequence, kForever);
  else if (first > now)
    futex_wait(timer_sequence_, sequence, nanoseconds_of(first - now) + 1);
  return !timer_stop_.load(std::memory_order_seq_cst);
}

void LapicBus::stop_timers() {
  timer_stop_.store(true, std::memory_order_seq_cst);
  timer_sequence_.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(timer_sequence_);
}

}  // namespace bulkhead::engine::dbt
