// How much a zone may send and receive.
#pragma once
#include "block/throttle/token_bucket.h"

namespace bulkhead::net {

using block::BucketLimit;

// What may pass in one direction; 0: as much as can.
struct Limits {
  BucketLimit bytes, packets;
  bool any() const { return bytes.per_second != 0 || packets.per_second != 0; }
};

}  // namespace bulkhead::net
