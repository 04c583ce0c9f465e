// What the store's tests share: a store with one set-up guest, and sessions to it.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "device/xenbus/store/session.h"
#include "device/xenbus/store/setup_domain.h"

namespace bulkhead::device::xenbus::store {

// Remembers what it is told.
class Ear final : public WatchSink {
 public:
  void watch_event(const WatchRef& watch, std::string_view path) override {
    heard.push_back(std::string{path} + " " + watch->token);
  }
  void watch_removed(const WatchRef&) override { ++removed; }
  std::vector<std::string> take() { return std::exchange(heard, {}); }
  std::vector<std::string> heard;
  unsigned removed = 0;
};

inline constexpr Domid kGuest = 7, kOther = 8;
inline const std::string kHome = "/local/domain/7";

inline DomainDescription a_domain(Domid id) {
  DomainDescription domain;
  domain.domain = id;
  domain.name = "zone" + std::to_string(id);
  domain.uuid = "00000000-0000-0000-0000-00000000000" + std::to_string(id);
  domain.type = "pv";
  domain.memory_kib = 262144;
  domain.vcpus = 2;
  return domain;
}

template <class T>
std::string error_of(const Reply<T>& reply) {
  return reply ? "OK" : std::string{error_name(reply.error())};
}

class StoreTest : public ::testing::Test {
 protected:
  explicit StoreTest(Limits limits = {}) : store{limits} {
    for (const Domid id : {kGuest, kOther}) EXPECT_TRUE(setup_domain(store, a_domain(id)));
    zero = store.connect(kDomainZero, zero_ear);
    guest = store.connect(kGuest, guest_ear);
    other = store.connect(kOther, other_ear);
  }
  u64 count(Count what) const { return store.counters()[static_cast<std::size_t>(what)].value(); }

  Store store;
  Ear zero_ear, guest_ear, other_ear;
  std::unique_ptr<Session> zero, guest, other;
};

}  // namespace bulkhead::device::xenbus::store
