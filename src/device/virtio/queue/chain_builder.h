// Turns descriptors into checked host buffers, with hard limits. Both ring formats feed it.
#pragma once
#include <span>
#include <vector>

#include "device/virtio/queue/chain.h"
#include "device/virtio/queue/fault.h"
#include "device/virtio/queue/ring_memory.h"
#include "memory/guest_memory.h"

namespace bulkhead::device::virtio {

// What one chain may hold. More is Fault::kTooLong or kTooManyBytes.
struct ChainLimits {
  u32 buffers = 1024;
  u64 bytes = 256_MiB;  // a chain's length in the used ring is 32 bits wide
};

class ChainBuilder {
 public:
  ChainBuilder(const GuestMemory& memory, ChainLimits limits) : memory_{memory}, limits_{limits} {}
  const GuestMemory& memory() const { return memory_; }
  void begin(ChainBuffers& into) {
    into_ = &into;
    into.clear();
    count_ = 0;
  }
  Fault add(u64 address, u32 length, bool writable);
  // A whole indirect table: linked by `next` in a split ring [virtio-1.3 §2.7.5.3], in order in a packed one [§2.8.7].
  Fault add_split_table(u64 address, u32 length);
  Fault add_packed_table(u64 address, u32 length);

 private:
  Fault load_table(u64 address, u32 length);  // copies it, once, to table_
  const GuestMemory& memory_;
  ChainLimits limits_;
  ChainBuffers* into_ = nullptr;
  u32 count_ = 0;
  std::vector<u64> table_;  // two words a descriptor
};

}  // namespace bulkhead::device::virtio
