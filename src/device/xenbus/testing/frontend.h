// A zone with a bus and nothing else, and the xenbus half of a guest's driver.
#pragma once
#include <future>

#include "device/xenbus/bus/backend_bus.h"
#include "device/xenbus/testing/fake_events.h"
#include "device/xenbus/testing/fake_grants.h"
#include "device/xenbus/testing/fake_store.h"

namespace bulkhead::device::xenbus::testing {

// Everything a backend needs. The bus goes first, so that what it unmaps and unwatches is still there.
struct XenbusZone {
  static constexpr u16 kDomain = 7;
  static constexpr Nanoseconds kForEver = 3'600'000'000'000, kNotAtAll = 1;

  explicit XenbusZone(Nanoseconds patience = kForEver, u32 pages = 2048)
      : grants{pages}, bus{loop, store, kDomain, patience} {}

  Unplugged unplug(std::string_view kind, u32 id, Unplug how) { return begin_unplug(kind, id, how).get(); }
  std::future<Unplugged> begin_unplug(std::string_view kind, u32 id, Unplug how) {
    auto done = std::make_shared<std::promise<Unplugged>>();
    bus.unplug(kind, id, how, [done](Unplugged result) { done->set_value(result); });
    return done->get_future();
  }
  u64 count(BackendBus::CounterIndex which) { return bus.counters()[which].value(); }

  FakeStore store;
  FakeGrants grants;
  FakeEvents events;
  Loop loop;
  BackendBus bus;
};

// One device as the guest's driver sees it.
class XenbusFrontend {
 public:
  XenbusFrontend(XenbusZone& of, std::string_view kind, u32 id)
      : zone{of},
        path{fmt::format("/local/domain/{}/device/{}/{}", XenbusZone::kDomain, kind, id)},
        backend{fmt::format("/local/domain/0/backend/{}/{}/{}", kind, XenbusZone::kDomain, id)} {}

  void say(std::string_view name, std::string_view value) { zone.store.write(path + "/" + std::string{name}, value); }
  void say(std::string_view name, u32 value) { say(name, std::to_string(value)); }
  void say(State state) { say("state", static_cast<u32>(state)); }
  bool await(State state) { return zone.store.await(backend + "/state", std::to_string(static_cast<u32>(state))); }
  bool await_gone() { return zone.store.await_absence(backend) && zone.store.await_absence(path); }
  std::string read(std::string_view name) {
    return zone.store.read(backend + "/" + std::string{name}).value_or("(none)");
  }
  State backend_state() { return static_cast<State>(parse_number(read("state")).value_or(0)); }
  // Waits until the backend has looked at everything that we said.
  void settle() {
    // Twice, since a watch's call posts to the loop.
    const std::string flag = path + "/settle";
    for (int i = 0; i < 2; ++i) {
      std::promise<void> called;
      bool first = true;
      const StorePort::WatchId watch = zone.store.watch(flag, [&](const std::string&) {
        if (std::exchange(first, false)) called.set_value();
      });
      called.get_future().wait();
      zone.store.unwatch(watch);
      zone.loop.run([] {});
    }
  }
  // As a driver that goes away.
  bool close() {
    say(State::kClosing);
    if (!await(State::kClosing)) return false;
    say(State::kClosed);
    return await(State::kClosed);
  }

  XenbusZone& zone;
  const std::string path, backend;
};

}  // namespace bulkhead::device::xenbus::testing
