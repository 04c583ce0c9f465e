// What Xen's split drivers see of the zone: the frontend's pages by grant, event channels, xenstore. Narrow, so that
// devices know no hypervisor; the machine joins them.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"

namespace bulkhead::device::xenbus {

// Pages that a frontend has granted to us. A page stays valid between map() and unmap(), whatever the guest does
// meanwhile; its contents may change at any moment. Any thread.
class GrantPort {
 public:
  virtual ~GrantPort() = default;
  // The page's host address; nullptr: no such grant, not granted to us, or read-only where `writable` is asked.
  virtual std::byte* map(u32 reference, bool writable) = 0;
  virtual void unmap(u32 reference,
                     bool writable) = 0;  // once for each successful map(); writable: we may have written
  // We have written to a page that stays mapped.
  virtual void written(u32 reference) {
    if (map(reference, true) != nullptr) unmap(reference, true);
  }
};

// One end of an interdomain event channel; unbound when destroyed. notify() from any thread.
class EventChannel {
 public:
  virtual ~EventChannel() = default;
  virtual void notify() = 0;
};
class EventPort {
 public:
  virtual ~EventPort() = default;
  // Connects to a port that the guest allocated for us. `on_event` is called on a vCPU's thread and must not block;
  // never after the channel is destroyed. nullptr: the guest has no such unbound port for us.
  virtual std::unique_ptr<EventChannel> bind(u32 guest_port, std::function<void()> on_event) = 0;
};

// xenstore as a backend sees it: absolute paths, permissions not checked (we are domain 0). Any thread.
class StorePort {
 public:
  using WatchId = u64;
  virtual ~StorePort() = default;
  virtual std::optional<std::string> read(std::string_view path) = 0;
  virtual std::vector<std::string> list(std::string_view path) = 0;  // children's names; empty also for no such node
  // Creates parents as needed. `guest_access`: what the zone itself may do with a node that this call creates.
  enum class GuestAccess : u8 { kNone, kRead, kReadWrite, kOwner };
  virtual void write(std::string_view path, std::string_view value, GuestAccess guest_access = GuestAccess::kRead) = 0;
  virtual void remove(std::string_view path) = 0;  // with everything below
  // Several changes that the guest sees at once: `change` reads and writes through the port that it gets, and may be
  // run again when something that it read was changed meanwhile.
  virtual void atomically(const std::function<void(StorePort&)>& change) = 0;
  // Calls `on_change(path)` at once with the watched path, and then for every change at or below it, on an internal
  // thread of the store, one at a time. Not called any more once unwatch() has returned (unless it is called from
  // within).
  virtual WatchId watch(std::string path, std::function<void(const std::string&)> on_change) = 0;
  virtual void unwatch(WatchId id) = 0;
};

}  // namespace bulkhead::device::xenbus
