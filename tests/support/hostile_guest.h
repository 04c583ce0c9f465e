// A guest that means harm: random register accesses of every width, and rings full of nonsense that is close enough to
// sense to get deep. The same seed does the same.
#pragma once
#include <random>

#include "support/virtio_guest.h"

namespace bulkhead::test {

class HostileGuest {
 public:
  HostileGuest(IoDevice& registers, const GuestMemory& memory, u64 seed)
      : registers_{registers}, memory_{memory}, random_{seed} {
    begin();
  }
  // Any register, any width, any value; now and then a proper start, so that the device is live meanwhile.
  void touch_registers(unsigned operations, unsigned queues);
  // Live queues whose descriptors, indexes and tables are random; notifies after each change.
  void corrupt_rings(unsigned rounds, unsigned queues, u64 device_features);

 private:
  u64 below(u64 limit) { return random_() % limit; }
  u64 interesting();
  u64 address();
  u32 length();
  void random_access();
  void scribble(VirtqueueDriver& queue, bool packed, u16 size);
  void begin();  // forgets all queues
  IoDevice& registers_;
  const GuestMemory& memory_;
  std::optional<VirtioGuest> guest_;
  std::mt19937_64 random_;
};

}  // namespace bulkhead::test
