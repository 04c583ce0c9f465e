// How much a zone may send and receive.
#pragma once
#include "block/throttle/token_bucket.h"

namespace bulkhead::net {

using block::BucketLimit;

// What may pass in one direction; 0: as much as can.
struct Limits {
  BucketLimit bytes, packets;
};

}  // namespace bulkhead::net
