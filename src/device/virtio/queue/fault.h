// What a driver can do wrong with a queue. Each makes the device need a reset [virtio-1.3 §2.1.2] and is counted.
#pragma once
#include <string_view>
#include <vector>

#include "base/ints.h"

namespace bulkhead::device::virtio {

enum class Fault : u8 {
  kNone,
  kIndexAhead,       // more buffers made available than the ring has
  kBadIndex,         // a descriptor number outside the table
  kLoop,             // a chain longer than the ring, which only a loop (or a lie) can make
  kTooLong,          // more buffers than we take in one chain
  kTooManyBytes,     // more bytes than we take in one chain
  kZeroLength,       // an empty descriptor
  kNotRam,           // a buffer that is not wholly RAM
  kReadAfterWrite,   // a device-readable descriptor behind a device-writable one
  kIndirectRefused,  // an indirect table that was not negotiated, is nested, or is followed by more
  kBadTable,         // an indirect table that is empty, not whole descriptors, or not RAM
  kNotAvailable,     // packed: a chain that runs into descriptors the driver has not made available
  kBadSetup,         // size, alignment or place of the rings
  kBadRequest,       // the ring is well-formed, the request in it is not
  kCount,
};

constexpr std::string_view name_of(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "none";
    case Fault::kIndexAhead:
      return "index_ahead";
    case Fault::kBadIndex:
      return "bad_index";
    case Fault::kLoop:
      return "loop";
    case Fault::kTooLong:
      return "too_long";
    case Fault::kTooManyBytes:
      return "too_many_bytes";
    case Fault::kZeroLength:
      return "zero_length";
    case Fault::kNotRam:
      return "not_ram";
    case Fault::kReadAfterWrite:
      return "read_after_write";
    case Fault::kIndirectRefused:
      return "indirect_refused";
    case Fault::kBadTable:
      return "bad_table";
    case Fault::kNotAvailable:
      return "not_available";
    case Fault::kBadSetup:
      return "bad_setup";
    case Fault::kBadRequest:
      return "bad_request";
    case Fault::kCount:
      break;
  }
  return "?";
}

inline std::vector<std::string_view> fault_names() {
  std::vector<std::string_view> names;
  for (u8 i = 0; i < static_cast<u8>(Fault::kCount); ++i) names.push_back(name_of(static_cast<Fault>(i)));
  return names;
}

// Where a queue reports a fault. From whichever thread works on the queue; must not block.
class FaultSink {
 public:
  virtual void queue_fault(Fault fault) = 0;

 protected:
  ~FaultSink() = default;
};

}  // namespace bulkhead::device::virtio
