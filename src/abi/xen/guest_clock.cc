#include "abi/xen/guest_clock.h"

#include <x86intrin.h>

#include <algorithm>
#include <atomic>

namespace bulkhead::abi::xen {
namespace {
constexpr u64 kSecond = 1'000'000'000;
constexpr u8 kTscStable = 1;  // XEN_PVCLOCK_TSC_STABLE_BIT: all vCPUs' clocks agree

// Odd while `write` is at work. What it writes cannot move before the exchange, nor behind the store.
template <class Write>
void versioned(u32& version, Write write) {
  std::atomic_ref shown{version};
  const u32 odd = shown.load(std::memory_order_relaxed) | 1;
  shown.exchange(odd, std::memory_order_acq_rel);
  write();
  shown.store(odd + 1, std::memory_order_release);
}
}  // namespace

u64 host_tsc() { return __rdtsc(); }

// ns = (cycles shifted by shift_) * multiplier_ / 2^32, with as many bits of the multiplier as fit.
GuestClock::GuestClock(const DomainConfig& config, Clock& host) : guest_tsc_{config.guest_tsc}, host_{host} {
  u64 hz = std::max<u64>(config.tsc_hz, 1);
  for (; hz > 2 * kSecond; hz >>= 1) --shift_;
  for (; hz <= kSecond; hz <<= 1) ++shift_;
  const u128 numerator = static_cast<u128>(kSecond) << 32;
  const u128 divisor =
      shift_ < 0 ? static_cast<u128>(config.tsc_hz) : static_cast<u128>(std::max<u64>(config.tsc_hz, 1)) << shift_;
  multiplier_ = static_cast<u32>((shift_ < 0 ? numerator << -shift_ : numerator) / divisor);
}

u64 GuestClock::tsc() const { return guest_tsc_ ? guest_tsc_() : host_tsc(); }

Nanoseconds GuestClock::host_time(Nanoseconds deadline) const {
  const Nanoseconds guest = now(), host = host_.now();
  if (deadline <= guest) return host;
  return host + std::min<Nanoseconds>(deadline - guest, u64{1} << 62);
}

vcpu_time_info_t GuestClock::time_info() const {
  vcpu_time_info_t info{};
  info.version = 2;
  info.tsc_timestamp = 0;
  info.system_time = 0;
  info.tsc_to_system_mul = multiplier_;
  info.tsc_shift = shift_;
  info.flags = kTscStable;
  return info;
}

void GuestClock::publish(vcpu_time_info_t& info) const {
  const vcpu_time_info_t fresh = time_info();
  versioned(info.version, [&] {
    info.tsc_timestamp = fresh.tsc_timestamp;
    info.system_time = fresh.system_time;
    info.tsc_to_system_mul = fresh.tsc_to_system_mul;
    info.tsc_shift = fresh.tsc_shift;
    info.flags = fresh.flags;
  });
}

void GuestClock::publish_wallclock(shared_info_t& shared) const {
  const u64 at_zero = host_.unix_time_ns() - now();
  versioned(shared.wc_version, [&] {
    shared.wc_sec = static_cast<u32>(at_zero / kSecond);
    shared.wc_nsec = static_cast<u32>(at_zero % kSecond);
    shared.wc_sec_hi = static_cast<u32>(at_zero / kSecond >> 32);
  });
}

}  // namespace bulkhead::abi::xen
