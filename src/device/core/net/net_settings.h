// What a zone's network device is like.
#pragma once
#include "net/frame.h"
#include "net/limits.h"

namespace bulkhead::device {

struct NetSettings {
  net::MacAddress mac{};
  u16 mtu = 1500;
  unsigned queues = 1;  // pairs, at most
  net::Limits out, in;  // from the guest, to the guest
};

}  // namespace bulkhead::device
