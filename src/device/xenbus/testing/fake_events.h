// A guest's event channels to us. Any thread.
#pragma once
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>

#include "device/xenbus/ports.h"

namespace bulkhead::device::xenbus::testing {

class FakeEvents final : public EventPort {
 public:
  // The guest's side.
  u32 allocate() {
    const std::lock_guard lock{mutex_};
    ports_[next_] = std::make_shared<Port>();
    return next_++;
  }
  void raise(u32 number) {
    std::unique_lock lock{mutex_};
    const std::shared_ptr<Port> port = ports_.at(number);
    if (!port->on_event) return;
    ++port->running;
    lock.unlock();
    port->on_event();
    lock.lock();
    --port->running;
    changed_.notify_all();
  }
  u64 notifications(u32 number) {
    const std::lock_guard lock{mutex_};
    return ports_.at(number)->notifications;
  }
  bool bound(u32 number) {
    const std::lock_guard lock{mutex_};
    return static_cast<bool>(ports_.at(number)->on_event);
  }
  // Waits until there were more than `seen` notifications. False: there were none for a very long time.
  bool await(u32 number, u64 seen) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, std::chrono::seconds{30}, [&] { return ports_.at(number)->notifications > seen; });
  }

  std::unique_ptr<EventChannel> bind(u32 number, std::function<void()> on_event) override {
    const std::lock_guard lock{mutex_};
    const auto found = ports_.find(number);
    if (found == ports_.end() || found->second->on_event) return nullptr;
    found->second->on_event = std::move(on_event);
    return std::make_unique<Channel>(*this, found->second);
  }

 private:
  struct Port {
    std::function<void()> on_event;
    unsigned running = 0;
    u64 notifications = 0;
  };
  class Channel final : public EventChannel {
   public:
    Channel(FakeEvents& events, std::shared_ptr<Port> port) : events_{events}, port_{std::move(port)} {}
    ~Channel() override {
      std::unique_lock lock{events_.mutex_};
      events_.changed_.wait(lock, [&] { return port_->running == 0; });
      port_->on_event = {};
    }
    void notify() override {
      {
        const std::lock_guard lock{events_.mutex_};
        ++port_->notifications;
      }
      events_.changed_.notify_all();
    }

   private:
    FakeEvents& events_;
    std::shared_ptr<Port> port_;
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<u32, std::shared_ptr<Port>> ports_;
  u32 next_ = 5;
};

}  // namespace bulkhead::device::xenbus::testing
