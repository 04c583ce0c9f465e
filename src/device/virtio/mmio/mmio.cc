#include "device/virtio/mmio/mmio.h"

#include <array>
#include <cstring>

#include "base/bits.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using namespace spec::virtio::mmio;

namespace {
constexpr u32 kVendor = 0x4b484c42;  // "BLHK"; means nothing to drivers

void set_low(Gpa& address, u32 value) { address.value = (address.value & ~u64{0xffffffff}) | value; }
void set_high(Gpa& address, u32 value) { address.value = (address.value & 0xffffffff) | (u64{value} << 32); }
}  // namespace

VirtioMmio::VirtioMmio(VirtioDevice& device, const GuestMemory& memory, IrqLine& irq, TransportFeatures transport)
    : irq_{irq}, session_{device, memory, *this, transport} {}

void VirtioMmio::set_page(std::byte* page, std::function<void()> changed) {
  page_ = page;
  changed_ = std::move(changed);
  refresh_page();
}

void VirtioMmio::refresh_page() {
  for (u64 offset = 0; offset < kRegConfig; offset += 4) {
    const u32 value = read_register(offset);
    std::memcpy(page_ + offset, &value, sizeof value);
  }
  std::array<std::byte, kWindowBytes - kRegConfig> config{};
  session_.device().read_config(0, config);
  std::memcpy(page_ + kRegConfig, config.data(), config.size());
}

IoReply VirtioMmio::refuse() {
  session_.count_refused();
  return IoReply::ignored();
}

IoReply VirtioMmio::read(u64 offset, AccessSize size) {
  if (offset >= kRegConfig) {
    u64 value = 0;
    session_.device().read_config(offset - kRegConfig,
                                  std::as_writable_bytes(std::span{&value, 1}).first(bytes_of(size)));
    return IoReply::data(value);
  }
  if (size != AccessSize::k4 || !is_aligned(offset, 4)) return refuse();
  return IoReply::data(read_register(offset));
}

IoReply VirtioMmio::write(u64 offset, u64 value, AccessSize size) {
  if (offset >= kRegConfig) {
    session_.device().write_config(offset - kRegConfig, std::as_bytes(std::span{&value, 1}).first(bytes_of(size)));
  } else if (size != AccessSize::k4 || !is_aligned(offset, 4)) {
    return refuse();
  } else {
    write_register(offset, static_cast<u32>(value));
  }
  if (page_ != nullptr && offset != kRegQueueNotify) refresh_page();
  return IoReply::done();
}

u32 VirtioMmio::queue_register(u64 offset) const {
  if (queue_select_ >= session_.queue_count()) return 0;  // 0 as its largest size: there is no such queue
  return offset == kRegQueueSizeMax ? session_.queue_max_size(queue_select_) : session_.queue_ready(queue_select_);
}

u32 VirtioMmio::read_register(u64 offset) {
  switch (offset) {
    case kRegMagic:
      return kMagic;
    case kRegVersion:
      return kVersion;
    case kRegDeviceId:
      return session_.device().type();
    case kRegVendorId:
      return kVendor;
    case kRegDeviceFeatures:
      return device_features_select_ > 1
                 ? 0
                 : static_cast<u32>(session_.offered_features() >> 32 * device_features_select_);
    case kRegQueueSizeMax:
    case kRegQueueReady:
      return queue_register(offset);
    case kRegInterruptStatus: {
      const Lock lock{interrupt_mutex_};
      return causes_ | (page_ != nullptr ? kInterruptUsed : 0);
    }
    case kRegStatus:
      return session_.status();
    case kRegConfigGeneration:
      return session_.config_generation();
    default:
      break;
  }
  // No shared memory region: length and base read as all ones [virtio-1.3 §4.2.2.1].
  if (offset >= kRegShmLenLow && offset <= kRegShmBaseHigh) return ~u32{0};
  return 0;
}

bool VirtioMmio::write_queue_register(u64 offset, u32 value) {
  switch (offset) {
    case kRegQueueSize:
    case kRegQueueDescLow:
    case kRegQueueDescHigh:
    case kRegQueueDriverLow:
    case kRegQueueDriverHigh:
    case kRegQueueDeviceLow:
    case kRegQueueDeviceHigh:
      break;
    default:
      return false;
  }
  QueueConfig* const setup = session_.queue_setup(queue_select_);
  if (setup == nullptr) return true;  // a live queue is not to be changed; counted
  switch (offset) {
    case kRegQueueSize:
      setup->size = value;
      break;
    case kRegQueueDescLow:
      set_low(setup->descriptors, value);
      break;
    case kRegQueueDescHigh:
      set_high(setup->descriptors, value);
      break;
    case kRegQueueDriverLow:
      set_low(setup->driver, value);
      break;
    case kRegQueueDriverHigh:
      set_high(setup->driver, value);
      break;
    case kRegQueueDeviceLow:
      set_low(setup->device, value);
      break;
    default:
      set_high(setup->device, value);
      break;
  }
  return true;
}

void VirtioMmio::write_register(u64 offset, u32 value) {
  switch (offset) {
    case kRegDeviceFeaturesSel:
      device_features_select_ = value;
      return;
    case kRegDriverFeaturesSel:
      driver_features_select_ = value;
      return;
    case kRegDriverFeatures:
      session_.write_driver_features(driver_features_select_, value);
      return;
    case kRegQueueSel:
      queue_select_ = value;
      return;
    case kRegQueueReady:
      session_.set_queue_ready(queue_select_, value & 1);
      return;
    case kRegQueueNotify:
      session_.notify(value);
      return;
    case kRegInterruptAck:
      acknowledge(value);
      return;
    case kRegStatus:
      session_.write_status(static_cast<u8>(value));
      if (static_cast<u8>(value) == 0) acknowledge(~u32{0});
      return;
    default:
      break;
  }
  if (!write_queue_register(offset, value)) session_.count_refused();
}

void VirtioMmio::raise(u32 causes) {
  const Lock lock{interrupt_mutex_};
  if (page_ != nullptr) {
    causes_ |= causes & ~kInterruptUsed;
    return causes_ == 0 ? irq_.pulse() : changed_();
  }
  const bool was_quiet = causes_ == 0;
  causes_ |= causes;
  if (was_quiet) irq_.set(true);
}

void VirtioMmio::acknowledge(u32 causes) {
  const Lock lock{interrupt_mutex_};
  const bool was_raised = causes_ != 0 && page_ == nullptr;
  causes_ &= ~causes;
  if (was_raised && causes_ == 0) irq_.set(false);
}

}  // namespace bulkhead::device::virtio
