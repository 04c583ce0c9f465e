// The agent's virtio-console port: an AgentSession that the device's threads and our loop share.
#pragma once
#include <functional>

#include "base/sync.h"
#include "device/console_backend.h"
#include "zone/session/agent_session.h"
#include "zone/session/wake.h"

namespace bulkhead::zone {

class AgentPort final : public device::ConsoleBackend {
 public:
  explicit AgentPort(Wake& wake) : wake_{wake} {}  // notified whenever something arrived

  // From the device. Takes everything: the protocol's credits bound what there can be.
  std::size_t write(std::span<const std::byte> data) override;
  std::size_t read(std::span<std::byte> out) override;
  void set_callbacks(std::function<void()> readable, std::function<void()> writable) override;

  // From the loop: runs `action(session)` under the lock, then offers the device what it queued. `action` must not
  // block or call back.
  template <class Action>
  auto with(Action&& action) {
    struct Offer {
      ~Offer() { port.offer(); }
      AgentPort& port;
    } offer{*this};
    const Lock lock{mutex_};
    return action(session_);
  }

 private:
  void offer();
  Wake& wake_;
  Mutex mutex_;
  AgentSession session_ BH_GUARDED_BY(mutex_);
  std::function<void()> readable_;
};

}  // namespace bulkhead::zone
