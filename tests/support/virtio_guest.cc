#include "support/virtio_guest.h"

#include <thread>

#include "base/assert.h"
#include "base/bits.h"
#include "spec/virtio.h"

namespace bulkhead::test {

using namespace spec::virtio;
using namespace spec::virtio::mmio;

VirtioGuest::VirtioGuest(IoDevice& registers, const GuestMemory& memory, Gpa heap)
    : registers_{registers}, memory_{memory}, heap_{heap} {}

u32 VirtioGuest::read(u64 offset) { return static_cast<u32>(registers_.read(offset, AccessSize::k4).value); }
void VirtioGuest::write(u64 offset, u32 value) { registers_.write(offset, value, AccessSize::k4); }

u64 VirtioGuest::offered_features() {
  write(kRegDeviceFeaturesSel, 1);
  const u64 high = read(kRegDeviceFeatures);
  write(kRegDeviceFeaturesSel, 0);
  return high << 32 | read(kRegDeviceFeatures);
}

bool VirtioGuest::negotiate(u64 wanted) {
  write(kRegStatus, 0);
  write(kRegStatus, kStatusAcknowledge);
  write(kRegStatus, kStatusAcknowledge | kStatusDriver);
  const u64 features = offered_features() & (wanted | kFeatureVersion1);
  for (const u32 word : {0u, 1u}) {
    write(kRegDriverFeaturesSel, word);
    write(kRegDriverFeatures, static_cast<u32>(features >> 32 * word));
  }
  write(kRegStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  return status() & kStatusFeaturesOk;
}

VirtqueueDriver& VirtioGuest::set_up_queue(unsigned index, u16 size, RingOptions options) {
  heap_.value = align_up(heap_.value, kPageSize);
  const Gpa area = heap_;
  heap_ = heap_ + VirtqueueDriver::bytes_needed(size);
  auto driver = std::make_unique<VirtqueueDriver>(memory_, area, size, options);
  const auto config = driver->config();
  write(kRegQueueSel, index);
  write(kRegQueueSize, size);
  write(kRegQueueDescLow, static_cast<u32>(config.descriptors.value));
  write(kRegQueueDescHigh, static_cast<u32>(config.descriptors.value >> 32));
  write(kRegQueueDriverLow, static_cast<u32>(config.driver.value));
  write(kRegQueueDriverHigh, static_cast<u32>(config.driver.value >> 32));
  write(kRegQueueDeviceLow, static_cast<u32>(config.device.value));
  write(kRegQueueDeviceHigh, static_cast<u32>(config.device.value >> 32));
  write(kRegQueueReady, 1);
  queues_[index] = std::move(driver);
  return *queues_[index];
}

bool VirtioGuest::bring_up(u64 device_features, RingOptions rings, unsigned queues, u16 size) {
  const u64 wanted = device_features | (rings.packed ? kFeaturePacked : 0) | (rings.indirect ? kFeatureIndirect : 0) |
                     (rings.event_index ? kFeatureEventIndex : 0);
  if (!negotiate(wanted)) return false;
  for (unsigned index = 0; index < queues; ++index) set_up_queue(index, size, rings);
  write(kRegStatus, status() | kStatusDriverOk);
  return status() == (kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
}

void VirtioGuest::kick(unsigned index) {
  if (queue(index).kick_wanted()) write(kRegQueueNotify, index);
}

VirtqueueDriver::Used VirtioGuest::wait_used(unsigned index) {
  while (true) {
    if (const auto used = queue(index).poll()) return *used;
    std::this_thread::yield();
  }
}

Gpa VirtioGuest::allocate(u64 bytes) {
  const Gpa at{align_up(heap_.value, 16)};
  heap_ = at + bytes;
  BH_ASSERT(memory_.host(at, bytes) != nullptr);
  return at;
}

Gpa VirtioGuest::put(std::string_view bytes) {
  const Gpa at = allocate(bytes.size());
  BH_ASSERT(memory_.write(at, std::as_bytes(std::span{bytes})));
  return at;
}

std::string VirtioGuest::get(Gpa at, u64 length) const {
  std::string bytes(length, '\0');
  BH_ASSERT(memory_.read(at, std::as_writable_bytes(std::span{bytes})));
  return bytes;
}

}  // namespace bulkhead::test
