// The control queue [virtio-1.3 §5.1.6.5]: on the thread that notifies, under the bus's lock.
#include <cstring>

#include "device/virtio/net/net.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using namespace spec::virtio::net;

namespace {

constexpr u32 kMostListed = 4096;  // addresses in one list; nobody has as many

template <class T>
bool take(Chain& chain, T& value) {
  return chain.take(std::as_writable_bytes(std::span{&value, 1}));
}

}  // namespace

void VirtioNet::serve_control() {
  Queue& queue = queues_[control_index()];
  do {
    queue.disable_notifications();
    while (std::optional<Chain> chain = queue.pop()) {
      std::byte* const answer = chain->take_last_writable();
      const bool good = command(*chain) && answer != nullptr;
      counters_[good ? kControlCommands : kControlRefused].add();
      if (answer != nullptr) *answer = std::byte{good ? kControlOk : kControlError};
      queue.push(std::move(*chain), answer != nullptr ? 1 : 0);
    }
  } while (queue.enable_notifications());
  if (queue.interrupt_wanted()) host_->interrupt_used();
}

bool VirtioNet::command(Chain& chain) {
  struct {
    u8 kind, which;
  } head;
  if (!take(chain, head)) return false;
  switch (head.kind) {
    case kClassRx:
      return (features_ & kFeatureControlRx) && set_receive_mode(head.which, chain);
    case kClassMac:
      return set_addresses(head.which, chain);
    case kClassMultiQueue:
      return (features_ & kFeatureMultiQueue) && head.which == kMultiQueuePairs && set_pairs(chain);
    case kClassOffloads:
      return (features_ & kFeatureGuestOffloads) && head.which == kOffloadsSet && set_offloads(chain);
    default:
      return false;
  }
}

bool VirtioNet::set_receive_mode(u8 which, Chain& chain) {
  u8 on = 0;
  if (!take(chain, on) || on > 1) return false;
  bool known = false;
  core_.paused([&] { known = filter_.set_mode(which, on != 0); });
  return known;
}

bool VirtioNet::set_addresses(u8 which, Chain& chain) {
  if (which == kMacAddress && (features_ & kFeatureControlMac)) {
    bulkhead::net::MacAddress mac;
    if (!take(chain, mac) || bulkhead::net::is_multicast(mac)) return false;
    core_.paused([&] { mac_ = mac; });
    return true;
  }
  if (which != kMacTable || !(features_ & kFeatureControlRx)) return false;
  std::vector<bulkhead::net::MacAddress> lists[2];  // of one station, of many
  for (auto& list : lists) {
    u32 count = 0;
    if (!take(chain, count) || count > kMostListed) return false;
    list.resize(count);
    if (!chain.take(std::as_writable_bytes(std::span{list}))) return false;
  }
  core_.paused([&] { filter_.set_addresses(std::move(lists[0]), std::move(lists[1])); });
  return true;
}

bool VirtioNet::set_pairs(Chain& chain) {
  u16 pairs = 0;
  if (!take(chain, pairs) || pairs < 1 || pairs > core_.pair_count()) return false;
  if (vhost_ != nullptr)
    use_rings(pairs);
  else
    core_.paused([&] { core_.set_pairs(pairs); });
  return true;
}

bool VirtioNet::set_offloads(Chain& chain) {
  u64 wanted = 0;
  if (!take(chain, wanted) || (wanted & ~(features_ & kGuestOffloads)) != 0) return false;
  core_.paused([&] {
    if (vhost_ != nullptr)
      core_.end().set_accepted(in_offloads(wanted));
    else
      core_.set_accepted(in_offloads(wanted));
  });
  return true;
}

}  // namespace bulkhead::device::virtio
