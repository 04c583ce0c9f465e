#include "device/core/console/console_core.h"

#include <thread>

namespace bulkhead::device {

ConsoleCore::ConsoleCore(std::vector<ConsolePortSpec> ports)
    : ports_{std::move(ports)}, host_open_{std::make_unique<std::atomic<bool>[]>(ports_.size())} {
  link_->core = nullptr;  // until somebody listens
  for (unsigned index = 0; index < ports_.size(); ++index) {
    host_open_[index] = true;
    if (ports_[index].backend == nullptr) continue;
    ports_[index].backend->set_callbacks([link = link_, index] { deliver(*link, index, Event::kReadable); },
                                         [link = link_, index] { deliver(*link, index, Event::kWritable); });
  }
}

ConsoleCore::~ConsoleCore() {
  link_->core = nullptr;
  while (link_->users.load() != 0) std::this_thread::yield();
}

void ConsoleCore::listen(Listener listener) {
  link_->core = nullptr;
  while (link_->users.load() != 0) std::this_thread::yield();
  listener_ = std::move(listener);
  if (listener_) link_->core = this;
}

void ConsoleCore::deliver(Link& link, unsigned port, Event event) {
  // Count first, look second: the destructor looks the other way round.
  link.users.fetch_add(1);
  if (ConsoleCore* const core = link.core.load()) core->listener_(port, event);
  link.users.fetch_sub(1);
}

std::size_t ConsoleCore::from_guest(unsigned port, std::span<const std::byte> data) {
  ConsoleBackend* const backend = ports_[port].backend;
  const std::size_t taken = backend == nullptr ? data.size() : backend->write(data);
  counters_[kBytesFromGuest].add(taken);
  if (taken < data.size()) counters_[kStalls].add();
  return taken;
}

std::size_t ConsoleCore::to_guest(unsigned port, std::span<std::byte> out) {
  ConsoleBackend* const backend = ports_[port].backend;
  const std::size_t got = backend == nullptr ? 0 : backend->read(out);
  counters_[kBytesToGuest].add(got);
  return got;
}

void ConsoleCore::guest_open(unsigned port, bool open) {
  if (ports_[port].backend != nullptr) ports_[port].backend->guest_open(open);
}

void ConsoleCore::emergency_write(std::byte value) {
  const Lock lock{emergency_mutex_};
  if (emergency_.size() < kEmergencyBytes)
    emergency_.push_back(value);
  else
    counters_[kEmergencyDropped].add();
}

void ConsoleCore::flush_emergency() {
  std::vector<std::byte> waiting;
  {
    const Lock lock{emergency_mutex_};
    waiting.swap(emergency_);
  }
  if (waiting.empty()) return;
  const std::size_t taken = from_guest(0, waiting);
  const Lock lock{emergency_mutex_};
  emergency_.insert(emergency_.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(taken), waiting.end());
}

TerminalSize ConsoleCore::size() const {
  const u32 packed = size_.load();
  return {static_cast<u16>(packed >> 16), static_cast<u16>(packed)};
}

void ConsoleCore::resize(TerminalSize size) {
  size_ = u32{size.columns} << 16 | size.rows;
  deliver(*link_, 0, Event::kAttributes);
}

void ConsoleCore::set_host_open(unsigned port, bool open) {
  host_open_[port] = open;
  deliver(*link_, port, Event::kAttributes);
}

}  // namespace bulkhead::device
