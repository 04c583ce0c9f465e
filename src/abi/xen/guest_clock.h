// The guest's system time: a fixed scale of its TSC, so that what it computes from vcpu_time_info and what hypercalls
// say never differ, and all vCPUs agree [xen/xen.h "vcpu_time_info"].
#pragma once
#include <xen/xen.h>

#include "abi/xen/domain.h"

namespace bulkhead::abi::xen {

// Any thread.
class GuestClock {
 public:
  GuestClock(const DomainConfig& config, Clock& host);

  Nanoseconds now() const { return scale(tsc()); }
  // When a deadline of the guest's comes, in the host's time. Far deadlines are cut off at some hundred years.
  Nanoseconds host_time(Nanoseconds deadline) const;
  // With the version protocol: readers retry while the version is odd or has changed.
  void publish(vcpu_time_info_t& info) const;
  void publish_wallclock(shared_info_t& shared) const;
  vcpu_time_info_t time_info() const;  // as publish() fills it, version 2
  // Nanoseconds of `cycles` of the guest's TSC.
  Nanoseconds scale(u64 cycles) const {
    const u64 shifted = shift_ < 0 ? cycles >> -shift_ : cycles << shift_;
    return static_cast<Nanoseconds>((static_cast<u128>(shifted) * multiplier_) >> 32);
  }

 private:
  u64 tsc() const;

  const std::function<u64()> guest_tsc_;
  Clock& host_;
  u32 multiplier_ = 0;
  i8 shift_ = 0;
};

u64 host_tsc();

}  // namespace bulkhead::abi::xen
