// Watches: who wants to hear of changes at or below a path.
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace bulkhead::device::xenbus::store {

struct Watch {
  std::string path;        // absolute, or "@..."
  std::string token;       // the watcher's own name for it
  std::size_t hidden = 0;  // so many bytes of an absolute path the watcher does not see: it watched a relative one
  std::string_view seen(std::string_view absolute) const { return absolute.substr(hidden); }
};
using WatchRef = std::shared_ptr<const Watch>;

// Who hears of it. Called with the store locked: must neither block nor call the store.
class WatchSink {
 public:
  virtual ~WatchSink() = default;
  // `path` as the watcher sees it: the watched one or one below it.
  virtual void watch_event(const WatchRef& watch, std::string_view path) = 0;
  virtual void watch_removed(const WatchRef& watch) = 0;  // no more events for it; those not yet told are void
};

}  // namespace bulkhead::device::xenbus::store
