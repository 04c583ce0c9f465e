// Event channels that a test holds in its hand: it raises the guest's events and counts ours.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "device/xenbus/ports.h"

namespace bulkhead::device::xenbus::testing {

// Any thread. Every port number can be bound once, except those in refuse().
class FakeEventPort final : public EventPort {
 public:
  std::unique_ptr<EventChannel> bind(u32 guest_port, std::function<void()> on_event) override {
    std::lock_guard lock{mutex_};
    Port& port = ports_[guest_port];
    if (port.bound || port.refused) return nullptr;
    port.bound = true;
    port.on_event = std::move(on_event);
    return std::make_unique<Channel>(*this, guest_port);
  }

  void refuse(u32 guest_port) {
    std::lock_guard lock{mutex_};
    ports_[guest_port].refused = true;
  }
  // The guest sends an event; false: nobody has bound the port.
  bool raise(u32 guest_port) {
    std::lock_guard lock{mutex_};
    const Port& port = ports_[guest_port];
    if (port.bound) port.on_event();
    return port.bound;
  }
  bool bound(u32 guest_port) {
    std::lock_guard lock{mutex_};
    return ports_[guest_port].bound;
  }
  u64 notified(u32 guest_port) {  // events sent to the guest
    std::lock_guard lock{mutex_};
    return ports_[guest_port].notified;
  }
  // Called for each event sent to the guest, on the sender's thread. Set it before anything is bound.
  std::function<void(u32)> on_notify = [](u32) {};

 private:
  struct Port {
    bool bound = false, refused = false;
    u64 notified = 0;
    std::function<void()> on_event;
  };
  class Channel final : public EventChannel {
   public:
    Channel(FakeEventPort& owner, u32 port) : owner_{owner}, port_{port} {}
    ~Channel() override {
      std::lock_guard lock{owner_.mutex_};
      owner_.ports_[port_].bound = false;
      owner_.ports_[port_].on_event = nullptr;
    }
    void notify() override {
      {
        std::lock_guard lock{owner_.mutex_};
        ++owner_.ports_[port_].notified;
      }
      owner_.on_notify(port_);
    }

   private:
    FakeEventPort& owner_;
    const u32 port_;
  };

  std::mutex mutex_;
  std::map<u32, Port> ports_;
};

}  // namespace bulkhead::device::xenbus::testing
