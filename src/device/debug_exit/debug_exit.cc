#include "device/debug_exit/debug_exit.h"

#include <utility>

#include "base/bits.h"

namespace bulkhead::device {

IoReply DebugExit::write(u64 offset, u64 value, AccessSize size) {
  if (offset >= kPorts) return IoReply::ignored();
  if (!std::exchange(called_, true)) exit_(static_cast<u8>(2 * (value & mask_for_size(bytes_of(size))) + 1));
  return IoReply::done();
}

}  // namespace bulkhead::device
