// Watch events that their watcher has not taken yet. Bounded whatever is changed meanwhile: an event that already waits
// is not added again, and beyond a limit an event is told as one of the watched path itself, of which there can be only
// one for each watch ("watches may be triggered spuriously" [xenstore "Watches"]).
#pragma once
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/sync.h"
#include "device/xenbus/store/watch.h"

namespace bulkhead::device::xenbus::store {

// Any thread.
class EventQueue {
 public:
  static constexpr std::size_t kMaxBytes = 512 << 10;  // of paths
  explicit EventQueue(std::size_t kept) : kept_{kept} {}

  enum class Pushed { kAdded, kMerged, kCollapsed };
  Pushed push(const WatchRef& watch, std::string_view path);
  using Event = std::pair<WatchRef, std::string>;
  std::optional<Event> pop();
  void drop(const WatchRef& watch);
  void clear();
  std::size_t size() const;

 private:
  using Waiting = std::set<Event>;
  bool add(const WatchRef& watch, std::string_view path) BH_REQUIRES(mutex_);

  const std::size_t kept_;
  mutable Mutex mutex_;
  Waiting waiting_ BH_GUARDED_BY(mutex_);
  std::deque<Waiting::iterator> order_ BH_GUARDED_BY(mutex_);
  std::size_t bytes_ BH_GUARDED_BY(mutex_) = 0;
};

}  // namespace bulkhead::device::xenbus::store
