// A xenstore of nothing but a tree and watches. Any thread.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "device/xenbus/ports.h"

namespace bulkhead::device::xenbus::testing {

class FakeStore final : public StorePort {
 public:
  FakeStore();
  ~FakeStore() override;

  // Waits until the node says so. False: it did not for a very long time.
  bool await(std::string_view path, std::string_view value);
  bool await_absence(std::string_view path);
  GuestAccess access(std::string_view path);  // of a node that is there
  std::size_t watches();

  std::optional<std::string> read(std::string_view path) override;
  std::vector<std::string> list(std::string_view path) override;
  void write(std::string_view path, std::string_view value, GuestAccess guest_access = GuestAccess::kRead) override;
  void remove(std::string_view path) override;
  void atomically(const std::function<void(StorePort&)>& change) override;
  WatchId watch(std::string path, std::function<void(const std::string&)> on_change) override;
  void unwatch(WatchId id) override;

 private:
  struct Node {
    std::string value;
    GuestAccess access;
  };
  struct Watch {
    std::string path;
    std::function<void(const std::string&)> on_change;
  };
  void fire(const std::string& path);
  void deliver();
  template <class Predicate>
  bool wait(Predicate predicate);

  std::recursive_mutex mutex_;  // recursive: atomically() holds it
  std::condition_variable_any changed_;
  std::map<std::string, Node, std::less<>> nodes_;
  std::map<WatchId, std::shared_ptr<Watch>> watches_;
  std::deque<std::pair<WatchId, std::string>> events_;
  WatchId next_ = 1, delivering_ = 0;
  bool exit_ = false;
  std::thread thread_;
};

}  // namespace bulkhead::device::xenbus::testing
