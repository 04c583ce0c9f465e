#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {

using namespace lapic_reg;

Lapic::Lapic(LapicBus& bus, unsigned index_in, CpuState& state) : index{index_in}, bus_{bus}, state_{state} {
  bus_.add(*this);
  reset(false);
}

int Lapic::highest(u32 base) const {
  for (int i = 7; i >= 0; --i)
    if (const u32 word = reg(base + static_cast<u32>(i) * 16)) return i * 32 + 31 - __builtin_clz(word);
  return -1;
}

void Lapic::signal(u32 pending_bits) {
  state_.pending.fetch_or(pending_bits, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst)) futex_wake(state_.pending);
}

bool Lapic::poll(u64 deadline) {
  const u64 end = bus_.host_tsc() + poll_ticks_;
  while (state_.pending.load(std::memory_order_relaxed) == 0) {
    const u64 now = bus_.host_tsc();
    if (now >= deadline) return true;
    if (now >= end) return false;
    __builtin_ia32_pause();
  }
  return true;
}

// An idle guest sleeps long and so pays nothing; one that waits for a neighbour gets its answer without a trip to the
// scheduler.
void Lapic::adapt_polling(u64 slept_ticks) {
  constexpr u64 kShortSleepNs = 200'000, kFirstPollNs = 10'000, kLongestPollNs = 40'000;
  const u64 slept = bus_.nanoseconds_of(slept_ticks);
  if (slept > kShortSleepNs)
    poll_ticks_ = 0;
  else if (poll_ticks_ == 0)
    poll_ticks_ = bus_.ticks_of(kFirstPollNs);
  else if (poll_ticks_ < bus_.ticks_of(kLongestPollNs))
    poll_ticks_ *= 2;
}

void Lapic::sleep() {
  const u64 begin = bus_.host_tsc();
  if (poll_ticks_ == 0 || !poll(deadline_.load())) {
    sleeping_.store(true, std::memory_order_seq_cst);
    const u64 deadline = deadline_.load();
    const u64 now = bus_.host_tsc();
    if (deadline == kNever)
      futex_wait(state_.pending, 0, kForever);
    else if (deadline > now)
      futex_wait(state_.pending, 0, bus_.nanoseconds_of(deadline - now) + 1);
    sleeping_.store(false, std::memory_order_seq_cst);
    adapt_polling(bus_.host_tsc() - begin);
  }
  check_timer(bus_.host_tsc());
  if (const u64 next = deadline_.load(); next != kNever) bus_.timer_armed(next);  // back to the timer thread
}

// [SDM-3A "Task Priority in IA-32e Mode", "Interrupt, Task, and Processor Priority"]
bool Lapic::update() {
  const u32 task = reg(kTaskPriority);
  const int in_service = highest(kIsr);
  const u32 service = in_service < 0 ? 0 : static_cast<u32>(in_service) & 0xf0;
  const u32 processor = (task & 0xf0) >= service ? task : service;
  reg(kProcessorPriority) = processor;
  const int requested = highest(kIrr);
  const bool fixed = enabled() && requested >= 0 && (static_cast<u32>(requested) & 0xf0) > (processor & 0xf0);
  const bool any = fixed || lint0_passes_extint() || direct_vector_ != 0;
  deliverable_.store(any, std::memory_order_release);
  return any;
}

// Without a LAPIC, or with LINT0 as a virtual wire, the 8259 interrupts the CPU directly [SDM-3A "Local Vector Table"].
bool Lapic::lint0_passes_extint() const {
  if (extint_latched_) return true;
  if (index != 0 || !bus_.extint_asserted.load(std::memory_order_acquire)) return false;
  return !enabled() || (reg(kLvt0) & (kLvtMasked | 0x700)) == 0x700;
}

void Lapic::lint0_changed(bool asserted) {
  const Change change{*this};
  const u32 entry = reg(kLvt0);
  if (asserted && enabled() && !(entry & kLvtMasked)) {
    const auto mode = static_cast<DeliveryMode>((entry >> 8) & 7);
    if (mode == DeliveryMode::kFixed) accept_vector(static_cast<u8>(entry), false);
    if (mode == DeliveryMode::kNmi) signal(kPendingNmi);
  }
}

void Lapic::inject_direct(u8 vector) {
  const Change change{*this};
  direct_vector_ = vector;
}

std::optional<u8> Lapic::acknowledge() {
  bool external;
  u8 direct;
  {
    FutexLock lock{mutex_};
    direct = std::exchange(direct_vector_, u8{0});
    external = direct == 0 && lint0_passes_extint() && bus_.extint_source != nullptr;
    if (direct == 0) extint_latched_ = false;
  }
  if (direct != 0) {
    const Change change{*this};  // what else there is
    return direct;
  }
  if (external) {
    bus_.before_callout(index);
    if (const auto vector = bus_.extint_source->acknowledge()) {
      const Change change{*this};
      return vector;
    }
  }
  const Change change{*this};
  std::optional<u8> taken;
  const int requested = highest(kIrr);
  if (enabled() && requested >= 0 && (static_cast<u32>(requested) & 0xf0) > (reg(kProcessorPriority) & 0xf0)) {
    taken = static_cast<u8>(requested);
    clear_vector(kIrr, *taken);
    set_vector(kIsr, *taken);
  }
  return taken;
}

void Lapic::end_of_interrupt() {
  std::optional<u8> broadcast;
  {
    const Change change{*this};
    const int in_service = highest(kIsr);
    if (in_service < 0) return;
    const auto vector = static_cast<u8>(in_service);
    clear_vector(kIsr, vector);
    const bool suppressed = (reg(kSpurious) >> 12) & 1;
    if (test_vector(kTmr, vector) && !suppressed) broadcast = vector;
  }
  if (!broadcast || !bus_.eoi_handler) return;
  bus_.before_callout(index);
  bus_.eoi_handler(*broadcast);
}

// ESR bit 6: a vector below 16 was received [SDM-3A "Error Handling"].
void Lapic::accept_vector(u8 vector, bool level) {
  if (!software_enabled()) return;
  if (vector < 16) return report_error(1u << 6);
  set_vector(kIrr, vector);
  if (level)
    set_vector(kTmr, vector);
  else
    clear_vector(kTmr, vector);
}

void Lapic::report_error(u32 esr_bit) {
  const bool repeated = errors_ & esr_bit;
  errors_ |= esr_bit;
  const u32 entry = reg(kLvtError);
  if (repeated || (entry & kLvtMasked) || (entry & 0xff) < 16) return;
  accept_vector(static_cast<u8>(entry), false);
}

void Lapic::accept(const InterruptMessage& message) {
  switch (message.mode) {
    case DeliveryMode::kFixed:
    case DeliveryMode::kLowestPriority: {
      const Change change{*this};
      return accept_vector(message.vector, message.level_triggered);
    }
    case DeliveryMode::kExtInt: {
      const Change change{*this};
      extint_latched_ = true;
      return;
    }
    case DeliveryMode::kNmi:
      return signal(kPendingNmi);
    case DeliveryMode::kInit:
      state_.pending.fetch_and(~u32{kPendingSipi});  // an earlier SIPI is void
      return signal(kPendingInit);
    case DeliveryMode::kSipi:
      sipi_vector_.store(message.vector, std::memory_order_release);
      return signal(kPendingSipi);
    case DeliveryMode::kSmi:
      return;  // there is no SMM
  }
}

}  // namespace bulkhead::engine::dbt
