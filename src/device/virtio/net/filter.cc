#include "device/virtio/net/filter.h"

#include <algorithm>
#include <cstring>

#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio::net;

bool ReceiveFilter::wants(std::span<const std::byte> frame, const net::MacAddress& own) const {
  if (promiscuous_) return true;
  net::MacAddress to;
  if (frame.size() < to.size()) return false;
  std::memcpy(to.data(), frame.data(), to.size());
  if (std::ranges::all_of(to, [](u8 byte) { return byte == 0xff; })) return !no_broadcast_;
  const bool multicast = net::is_multicast(to);
  if (multicast ? no_multicast_ : no_unicast_) return false;
  if (multicast ? all_multicast_ || too_many_multicast_ : all_unicast_ || too_many_unicast_ || to == own) return true;
  const std::vector<net::MacAddress>& list = multicast ? multicast_ : unicast_;
  return std::ranges::find(list, to) != list.end();
}

bool ReceiveFilter::set_mode(u8 command, bool on) {
  switch (command) {
    case kRxPromiscuous:
      promiscuous_ = on;
      return true;
    case kRxAllMulticast:
      all_multicast_ = on;
      return true;
    case kRxAllUnicast:
      all_unicast_ = on;
      return true;
    case kRxNoMulticast:
      no_multicast_ = on;
      return true;
    case kRxNoUnicast:
      no_unicast_ = on;
      return true;
    case kRxNoBroadcast:
      no_broadcast_ = on;
      return true;
    default:
      return false;
  }
}

void ReceiveFilter::set_addresses(std::vector<net::MacAddress> unicast, std::vector<net::MacAddress> multicast) {
  too_many_unicast_ = unicast.size() > kMaxAddresses;
  too_many_multicast_ = multicast.size() > kMaxAddresses;
  unicast_ = std::move(unicast);
  multicast_ = std::move(multicast);
  unicast_.resize(std::min(unicast_.size(), kMaxAddresses));
  multicast_.resize(std::min(multicast_.size(), kMaxAddresses));
}

}  // namespace bulkhead::device::virtio
