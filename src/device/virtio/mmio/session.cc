#include "device/virtio/mmio/session.h"

#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {
std::vector<std::string_view> counter_names() {
  std::vector<std::string_view> names{"notifications", "interrupts", "resets", "refused_accesses"};
  for (const std::string_view fault : fault_names()) names.push_back(fault);
  return names;
}
}  // namespace

Session::Session(VirtioDevice& device, const GuestMemory& memory, InterruptSink& interrupts,
                 TransportFeatures transport)
    : device_{device}, interrupts_{interrupts}, transport_{transport}, counters_{counter_names()} {
  for (const u16 size : device.queue_sizes()) {
    queues_.emplace_back(memory, static_cast<FaultSink&>(*this), size);
    setups_.push_back({.size = size});
  }
  device_.attach(*this, queues_);
}

Session::~Session() { reset(); }

u64 Session::offered_features() const {
  return device_.features() | kFeatureVersion1 | (transport_.packed ? kFeaturePacked : 0) |
         (transport_.indirect ? kFeatureIndirect : 0) | (transport_.event_index ? kFeatureEventIndex : 0);
}

void Session::write_driver_features(unsigned word, u32 value) {
  // Closed once FEATURES_OK is set [virtio-1.3 §3.1.1].
  if (word > 1 || (status() & kStatusFeaturesOk)) return count_refused();
  const unsigned shift = 32 * word;
  driver_features_ = (driver_features_ & ~(u64{0xffffffff} << shift)) | (u64{value} << shift);
}

bool Session::features_acceptable() const {
  return (driver_features_ & ~offered_features()) == 0 && (driver_features_ & kFeatureVersion1) != 0;
}

void Session::write_status(u8 value) {
  if (value == 0) return reset();
  const u8 before = status();
  u8 wanted = value & (kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk | kStatusFailed);
  // Refused features show by FEATURES_OK reading back as 0 [virtio-1.3 §3.1.1].
  if (!(before & kStatusFeaturesOk) && (wanted & kStatusFeaturesOk) && !features_acceptable()) {
    wanted &= ~kStatusFeaturesOk;
    count_refused();
  }
  // Bits are only ever added; DRIVER_OK is nothing without FEATURES_OK.
  if (!((before | wanted) & kStatusFeaturesOk)) wanted &= ~kStatusDriverOk;
  status_.fetch_or(wanted);
  if ((wanted & kStatusDriverOk) && !(before & kStatusDriverOk)) device_.start(driver_features_);
}

void Session::reset() {
  device_.abandon();
  device_.quiesced([&] {
    for (unsigned index = 0; index < queues_.size(); ++index) {
      device_.stop_queue(index);
      queues_[index].disable();
      setups_[index] = {.size = queues_[index].max_size()};
    }
    device_.reset();
  });
  driver_features_ = 0;
  status_ = 0;
  counters_[kResets].add();
}

QueueConfig* Session::queue_setup(u32 index) {
  if (index < queues_.size() && !queues_[index].enabled()) return &setups_[index];
  count_refused();
  return nullptr;
}

void Session::set_queue_ready(u32 index, bool ready) {
  if (index >= queues_.size()) return count_refused();
  if (ready == queues_[index].enabled()) return;
  // Rings mean nothing before their format is agreed on.
  if (ready && !(status() & kStatusFeaturesOk)) return count_refused();
  device_.quiesced([&] {
    if (!ready) {
      device_.stop_queue(index);
      queues_[index].disable();
      return;
    }
    QueueConfig config = setups_[index];
    config.packed = driver_features_ & kFeaturePacked;
    config.indirect = driver_features_ & kFeatureIndirect;
    config.event_index = driver_features_ & kFeatureEventIndex;
    queues_[index].enable(config);
  });
}

void Session::notify(u32 index) {
  counters_[kNotifications].add();
  constexpr u8 kLive = kStatusDriverOk;
  if (index >= queues_.size() || (status() & (kLive | kStatusNeedsReset)) != kLive) return count_refused();
  device_.notify(index);
}

void Session::interrupt_used() {
  counters_[kInterrupts].add();
  interrupts_.raise(mmio::kInterruptUsed);
}

void Session::config_changed() {
  generation_.fetch_add(1);
  if (status() & kStatusDriverOk) interrupts_.raise(mmio::kInterruptConfig);
}

void Session::queue_fault(Fault fault) {
  counters_[kFirstFault + static_cast<u8>(fault)].add();
  // DEVICE_NEEDS_RESET, with a configuration interrupt if the driver runs [virtio-1.3 §2.1.2].
  const u8 before = status_.fetch_or(kStatusNeedsReset);
  if (!(before & kStatusNeedsReset) && (before & kStatusDriverOk)) interrupts_.raise(mmio::kInterruptConfig);
}

}  // namespace bulkhead::device::virtio
