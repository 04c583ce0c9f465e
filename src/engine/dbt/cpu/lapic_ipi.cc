// The bus between the LAPICs, and the interrupt command register.
#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {

using namespace lapic_reg;

namespace {
u64 fixed_point_ratio(u64 numerator, u64 denominator) {
  return static_cast<u64>((u128{numerator} << 32) / denominator);
}
constexpr u64 kNanosecondsPerSecond = 1'000'000'000;
}  // namespace

LapicBus::LapicBus(const Features& features_in)
    : features{features_in},
      tsc_to_ns_{fixed_point_ratio(kNanosecondsPerSecond, features_in.tsc_hz)},
      ns_to_tsc_{fixed_point_ratio(features_in.tsc_hz, kNanosecondsPerSecond)} {}

void LapicBus::add(Lapic& lapic) { lapics_.push_back(&lapic); }

u64 LapicBus::host_tsc() const { return __builtin_ia32_rdtsc(); }

void LapicBus::set_extint(bool asserted) {
  if (extint_asserted.exchange(asserted) != asserted && !lapics_.empty()) lapics_[0]->lint0_changed(asserted);
}

// [SDM-3A "Message Address Register Format"]. Destination 255 is everybody, whatever mode the receivers are in.
void LapicBus::deliver_msi(Msi message) {
  const u32 destination = (message.address >> 12) & 0xff;
  const bool logical = (message.address >> 2) & 1;
  const bool redirect = (message.address >> 3) & 1;
  const u32 mode = (message.data >> 8) & 7;
  if (mode == 3) return;  // reserved
  InterruptMessage interrupt{.destination = destination == 0xff ? kBroadcast : destination,
                             .logical = logical,
                             .mode = static_cast<DeliveryMode>(mode),
                             .vector = static_cast<u8>(message.data),
                             .level_triggered = ((message.data >> 15) & 1) != 0};
  if (redirect && logical && interrupt.mode == DeliveryMode::kFixed) interrupt.mode = DeliveryMode::kLowestPriority;
  route(interrupt);
}

void LapicBus::route(const InterruptMessage& message, const Lapic* except) {
  if (message.mode != DeliveryMode::kLowestPriority) {
    for (Lapic* lapic : lapics_)
      if (lapic != except && lapic->matches(message)) lapic->accept(message);
    return;
  }
  const auto count = static_cast<u32>(lapics_.size());
  const u32 first = round_robin_.fetch_add(1, std::memory_order_relaxed);
  Lapic* best = nullptr;
  u32 best_priority = ~u32{0};
  for (u32 i = 0; i < count; ++i) {
    Lapic* lapic = lapics_[(first + i) % count];
    if (lapic == except || !lapic->matches(message)) continue;
    const u32 priority = lapic->arbitration_priority();
    if (priority < best_priority) best = lapic, best_priority = priority;
  }
  if (best) best->accept(message);
}

// A LAPIC that is off by software takes no vectored interrupt, so it comes last.
u32 Lapic::arbitration_priority() const {
  FutexLock lock{mutex_};
  return software_enabled() ? reg(kProcessorPriority) >> 4 : 0x100;
}

// [SDM-3A "Determining IPI Destination", "Logical Destination Mode in x2APIC Mode"]
bool Lapic::matches(const InterruptMessage& message) const {
  FutexLock lock{mutex_};
  if (!enabled()) return false;
  const u32 to = message.destination;
  if (to == kBroadcast) return true;
  if (!message.logical) return to == index;
  const u32 logical = reg(kLogicalDestination);
  if (x2apic()) return (to >> 16) == (logical >> 16) && (to & logical & 0xffff) != 0;
  const u32 mine = logical >> 24;
  if ((reg(kDestinationFormat) >> 28) == 0xf) return (to & mine & 0xff) != 0;  // flat
  return ((to & 0xff) >> 4) == (mine >> 4) && (to & mine & 0xf) != 0;          // cluster
}

// [SDM-3A "Interrupt Command Register"]. `destination` is already 32 bits wide, with kBroadcast for everybody.
void Lapic::send_ipi(u32 command, u32 destination) {
  const u32 mode = (command >> 8) & 7;
  const bool vectored = mode <= 1;
  const auto vector = static_cast<u8>(command);
  if (vectored && vector < 16) {
    const Change change{*this};
    return report_error(1u << 5);  // ESR: send illegal vector
  }
  const bool assert_level = (command >> 14) & 1, level = (command >> 15) & 1;
  if (mode == 3 || mode == 7) return;               // reserved
  if (mode == 5 && level && !assert_level) return;  // INIT level de-assert: not on these CPUs
  InterruptMessage message{.destination = destination,
                           .logical = ((command >> 11) & 1) != 0,
                           .mode = static_cast<DeliveryMode>(mode),
                           .vector = vector};
  bus_.before_ipi(index);
  const u32 shorthand = (command >> 18) & 3;
  if (shorthand == 1) return accept(message);
  if (shorthand >= 2) message.destination = kBroadcast;
  bus_.route(message, shorthand == 3 ? this : nullptr);
}

}  // namespace bulkhead::engine::dbt
