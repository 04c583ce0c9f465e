// The part of a virtio transport that does not depend on the bus: status, feature negotiation, queue setup, counters
// [virtio-1.3 §2.1 to §2.2, §3.1].
// Threads: everything from vCPU threads under the bus lock of the device, except DeviceHost and FaultSink (any thread).
#pragma once
#include <atomic>
#include <vector>

#include "device/virtio/device.h"
#include "telemetry/counter.h"

namespace bulkhead::device::virtio {

// What a transport offers besides the device's own features. Off only to test drivers, or to live with a broken one.
struct TransportFeatures {
  bool packed = true, indirect = true, event_index = true;
};

// How a transport raises its interrupts. Any thread; must not block.
class InterruptSink {
 public:
  virtual void raise(u32 causes) = 0;  // spec::virtio::mmio::kInterrupt...

 protected:
  ~InterruptSink() = default;
};

class Session final : public DeviceHost, private FaultSink {
 public:
  // All three outlive the session; the device must not have another.
  Session(VirtioDevice& device, const GuestMemory& memory, InterruptSink& interrupts, TransportFeatures transport);
  ~Session();

  u64 offered_features() const;
  void write_driver_features(unsigned word, u32 value);  // word 0 or 1; others are ignored
  u8 status() const { return status_.load(); }
  void write_status(u8 value);  // 0 resets, at once: when it returns, nothing of the device touches guest memory
  u32 config_generation() const { return generation_.load(); }

  unsigned queue_count() const { return static_cast<unsigned>(queues_.size()); }
  u32 queue_max_size(unsigned index) const { return queues_[index].max_size(); }
  bool queue_ready(unsigned index) const { return queues_[index].enabled(); }
  // The queue's size and addresses to be; nullptr when there is no such queue or it is live, and so not to be changed.
  QueueConfig* queue_setup(u32 index);
  void set_queue_ready(u32 index, bool ready);
  void notify(u32 index);

  VirtioDevice& device() { return device_; }
  void interrupt_used() override;
  void config_changed() override;
  QueueEvents* events() override { return events_; }
  void set_events(QueueEvents* events) { events_ = events; }  // before the driver's first access; outlives the session

  // kNotifications and so on, then one counter per Fault.
  enum CounterIndex : u8 { kNotifications, kInterrupts, kResets, kRefusedAccesses, kFirstFault };
  const telemetry::CounterSet& counters() const { return counters_; }
  u64 faults(Fault fault) const { return counters_[kFirstFault + static_cast<u8>(fault)].value(); }
  void count_refused() { counters_[kRefusedAccesses].add(); }

 private:
  void queue_fault(Fault fault) override;
  void reset();
  bool features_acceptable() const;

  VirtioDevice& device_;
  InterruptSink& interrupts_;
  TransportFeatures transport_;
  QueueEvents* events_ = nullptr;
  telemetry::CounterSet counters_;
  std::atomic<u8> status_{0};
  std::atomic<u32> generation_{0};
  u64 driver_features_ = 0;
  std::vector<Queue> queues_;
  std::vector<QueueConfig> setups_;
};

}  // namespace bulkhead::device::virtio
