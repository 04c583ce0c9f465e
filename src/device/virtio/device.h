// What a virtio device type implements, and what it may ask of the transport it sits behind.
#pragma once
#include <functional>
#include <span>

#include "device/virtio/queue/queue.h"

namespace bulkhead::device::virtio {

// Where a transport has them: eventfds for queues that the kernel serves instead of us. Under the lock of the device's
// calls.
class QueueEvents {
 public:
  // By which the driver's notifications of a queue come. Nobody of ours waits for it from now on, until give_back().
  virtual int borrow_notifications(unsigned queue) = 0;
  virtual void give_back(unsigned queue) = 0;
  virtual int interrupts() = 0;  // adding to it does what interrupt_used() does

 protected:
  ~QueueEvents() = default;
};

// The transport, seen from the device. Any thread; nothing here blocks.
class DeviceHost {
 public:
  virtual void interrupt_used() = 0;  // buffers were used in some queue, and the driver wants to know
  virtual void config_changed() = 0;  // the configuration space reads differently now
  virtual QueueEvents* events() { return nullptr; }

 protected:
  ~DeviceHost() = default;
};

// Calls come from vCPU threads, one at a time, except where said. The device outlives its transport.
class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;
  virtual u32 type() const = 0;      // spec::virtio::kType...
  virtual u64 features() const = 0;  // of the device type only; never changes
  // The largest size of each queue, and so their number; never changes.
  virtual std::span<const u16> queue_sizes() const = 0;
  // Configuration space [virtio-1.3 §2.5]. `out` comes zeroed: what lies behind the end stays so.
  virtual void read_config(u64 offset, std::span<std::byte> out) = 0;
  virtual void write_config(u64, std::span<const std::byte>) {}

  // Once, before anything else: whom to call and which queues to work on.
  virtual void attach(DeviceHost& host, std::span<Queue> queues) = 0;
  // DRIVER_OK, with what was negotiated. Queues may hold buffers already: look into each that is enabled.
  virtual void start(u64 features) = 0;
  // The driver says there is something in queue `index` (< queue count). Never blocks on I/O.
  virtual void notify(unsigned index) = 0;
  // A reset comes: what waits for something outside, and not for the disk itself, may be given up. Before quiesced().
  virtual void abandon() {}
  // Runs `change` while no thread of the device touches a queue. What is in flight is finished first; chains that wait
  // for an outside event are dropped if their queue is to stop (stop_queue).
  virtual void quiesced(const std::function<void()>& change) = 0;
  // Within quiesced(): gives back (drops) every chain held from queue `index`.
  virtual void stop_queue(unsigned index) = 0;
  // Within quiesced(), after all queues stopped: back to the state before start().
  virtual void reset() = 0;
};

}  // namespace bulkhead::device::virtio
