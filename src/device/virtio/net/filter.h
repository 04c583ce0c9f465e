// Which frames a driver wants to have [virtio-1.3 §5.1.6.5.1, §5.1.6.5.2]. As after a reset: all of them, for a driver
// that never says anything must not miss any.
#pragma once
#include <vector>

#include "net/frame.h"

namespace bulkhead::device::virtio {

class ReceiveFilter {
 public:
  static constexpr std::size_t kMaxAddresses = 64;  // of each kind; more: all of the kind

  bool wants(std::span<const std::byte> frame, const net::MacAddress& own) const;
  // False: there is no such command.
  bool set_mode(u8 command, bool on);
  void set_addresses(std::vector<net::MacAddress> unicast, std::vector<net::MacAddress> multicast);

 private:
  bool promiscuous_ = true;
  bool all_multicast_ = false, all_unicast_ = false, no_multicast_ = false, no_unicast_ = false, no_broadcast_ = false;
  bool too_many_unicast_ = false, too_many_multicast_ = false;
  std::vector<net::MacAddress> unicast_, multicast_;
};

}  // namespace bulkhead::device::virtio
