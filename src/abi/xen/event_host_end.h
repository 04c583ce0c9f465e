// Domain 0's end of an event channel.
#pragma once
#include "abi/xen/events.h"

namespace bulkhead::abi::xen {

// Shared between its owner's Binding, the guest's channel, and whoever is just sending. The mutex is recursive, so that
// a callback may destroy its own binding.
class Events::HostEnd {
 public:
  HostEnd(std::function<void()> on_event, u32 port) : guest_port{port}, on_event_{std::move(on_event)} {}
  void fire() {
    std::lock_guard lock{mutex_};
    if (alive_) on_event_();
  }
  void retire() {  // waits for a running callback, unless from within it
    std::lock_guard lock{mutex_};
    alive_ = false;
  }
  u32 guest_port;  // under the lock of Events; 0: the guest has closed its end

 private:
  std::recursive_mutex mutex_;
  bool alive_ = true;
  const std::function<void()> on_event_;
};

class Events::HostBinding final : public EventHost::Binding {
 public:
  HostBinding(Events& events, std::shared_ptr<HostEnd> end) : events_{events}, end_{std::move(end)} {}
  ~HostBinding() override { events_.unbind_host(*end_); }
  void notify() override { events_.notify_from_host(*end_); }

 private:
  Events& events_;
  const std::shared_ptr<HostEnd> end_;
};

}  // namespace bulkhead::abi::xen
