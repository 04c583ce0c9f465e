#include "machine/xen/control.h"

#include <fmt/format.h>

namespace bulkhead::machine {
namespace {

std::string_view word(ShutdownRequest what) {
  switch (what) {
    case ShutdownRequest::kPowerOff:
      return "poweroff";
    case ShutdownRequest::kReboot:
      return "reboot";
    case ShutdownRequest::kHalt:
      return "halt";
    case ShutdownRequest::kSuspend:
      break;
  }
  return "suspend";
}

// There is none for halting, which is older than the features: who powers off also halts.
std::string_view feature(ShutdownRequest what) {
  return word(what == ShutdownRequest::kHalt ? ShutdownRequest::kPowerOff : what);
}

}  // namespace

XenControl::XenControl(device::xenbus::StorePort& store, u16 domain)
    : store_{store}, directory_{fmt::format("/local/domain/{}/control", domain)} {}

Asked XenControl::request(ShutdownRequest what) {
  if (store_.read(fmt::format("{}/feature-{}", directory_, feature(what))) != "1") {
    counters_[kUnheardRequests].add();
    return Asked::kNobodyListens;
  }
  // The node stays the guest's own, so that it can clear it. One that the guest has removed is made anew.
  store_.write(directory_ + "/shutdown", word(what), device::xenbus::StorePort::GuestAccess::kOwner);
  counters_[kRequests].add();
  return Asked::kAsked;
}

}  // namespace bulkhead::machine
