// The store as the zone's device backends see it: domain 0's end, with a thread that tells them of changes.
#pragma once
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "device/xenbus/ports.h"
#include "device/xenbus/store/event_queue.h"
#include "device/xenbus/store/session.h"

namespace bulkhead::device::xenbus::store {

// Any thread. What is not a path is absent when read, and nothing when written or watched: backends put paths together
// from what a guest has written. Nobody watches any more when this is destroyed.
class DomainZero final : public StorePort, private WatchSink {
 public:
  static constexpr std::size_t kEventsKept = 4096;
  static constexpr unsigned kTriesBeforeHold = 8;

  DomainZero(Store& store, Domid guest);
  ~DomainZero() override;

  std::optional<std::string> read(std::string_view path) override;
  std::vector<std::string> list(std::string_view path) override;
  // kOwner is what a frontend's nodes have: the zone owns them, and domain 0 is named as a reader.
  void write(std::string_view path, std::string_view value, GuestAccess guest_access = GuestAccess::kRead) override;
  void remove(std::string_view path) override;
  // A guest that keeps changing what `change` reads is made to wait in the end. Must not end the zone's StoreServer.
  void atomically(const std::function<void(StorePort&)>& change) override;
  WatchId watch(std::string path, std::function<void(const std::string&)> on_change) override;
  void unwatch(WatchId id) override;

 private:
  class InTransaction;
  struct Watcher {
    std::string path;
    std::function<void(const std::string&)> on_change;
  };
  void write_in(u32 transaction, std::string_view path, std::string_view value, GuestAccess guest_access);
  void watch_event(const WatchRef& watch, std::string_view path) override;
  void watch_removed(const WatchRef& watch) override;
  void dispatch();

  Store& store_;
  const Domid guest_;
  EventQueue events_;
  std::unique_ptr<Session> session_;
  std::mutex mutex_;  // never held while the store is called, which calls us
  std::condition_variable changed_;
  // Under mutex_:
  bool pending_ = false, stop_ = false;
  WatchId last_id_ = 0, running_ = 0;
  std::map<WatchId, std::shared_ptr<const Watcher>> watchers_;
  std::thread thread_;
};

}  // namespace bulkhead::device::xenbus::store
