#include "zone/session/agent_port.h"

namespace bulkhead::zone {

std::size_t AgentPort::write(std::span<const std::byte> data) {
  {
    const Lock lock{mutex_};
    session_.receive(data);  // a broken protocol is found by the loop
  }
  wake_.notify();
  return data.size();
}

std::size_t AgentPort::read(std::span<std::byte> out) {
  std::size_t size;
  {
    const Lock lock{mutex_};
    size = session_.take(out);
  }
  if (size > 0) wake_.notify();  // there may be room for more input
  return size;
}

void AgentPort::set_callbacks(std::function<void()> readable, std::function<void()>) {
  readable_ = std::move(readable);
}

void AgentPort::offer() {
  bool any;
  {
    const Lock lock{mutex_};
    any = session_.has_output();
  }
  if (any && readable_) readable_();
}

}  // namespace bulkhead::zone
