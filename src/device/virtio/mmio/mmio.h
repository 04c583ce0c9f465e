// virtio over memory-mapped registers, version 2 [virtio-1.3 §4.2].
// Fidelity: complete, without shared memory regions and queue reset (neither offered). The legacy version 1 is not
// there. Threads: registers from vCPU threads under the bus lock; interrupts from any thread. Writing 0 to Status waits
// for the request that is being worked on, so it may take as long as one disk access; nothing else waits for I/O.
#pragma once
#include <functional>

#include "base/sync.h"
#include "bus/io.h"
#include "device/virtio/mmio/session.h"

namespace bulkhead::device::virtio {

class VirtioMmio final : public IoDevice, private InterruptSink {
 public:
  static constexpr u64 kWindowBytes = 0x200;  // what has registers
  static constexpr u64 kPageBytes = 0x1000;   // what to attach on the bus and to name in ACPI: behind it reads as 0

  // All outlive the transport, whose destructor resets the device.
  VirtioMmio(VirtioDevice& device, const GuestMemory& memory, IrqLine& irq, TransportFeatures transport = {});

  // Registers answer to aligned 4-byte accesses, the configuration space to any of 1, 2, 4 and 8 bytes
  // [virtio-1.3 §4.2.2.2]. Everything else is ignored and counted.
  IoReply read(u64 offset, AccessSize size) override;
  IoReply write(u64 offset, u64 value, AccessSize size) override;

  const Session& session() const { return session_; }

  // ---- registers that a guest reads from memory, where a machine can show them so. The interrupt is an edge then, and
  // InterruptStatus always has "used buffer" set: a driver looks into its queues at each interrupt, and need not be
  // waited for; a write of just that bit to InterruptAck means nothing and need not come here. All under the bus's
  // lock. From now on `page` shows the registers. `changed` is called (any thread) when the device has changed what
  // they show: somebody shall call refresh_page() soon, with the bus's lock, and then drive the line.
  void set_page(std::byte* page, std::function<void()> changed);
  void refresh_page();
  void set_events(QueueEvents* events) { session_.set_events(events); }

 private:
  void raise(u32 causes) override;
  void acknowledge(u32 causes);
  u32 read_register(u64 offset);
  void write_register(u64 offset, u32 value);
  u32 queue_register(u64 offset) const;
  bool write_queue_register(u64 offset, u32 value);
  IoReply refuse();

  IrqLine& irq_;
  std::byte* page_ = nullptr;
  std::function<void()> changed_;
  Mutex interrupt_mutex_;  // keeps causes and line in step between raise() and acknowledge()
  u32 causes_ BH_GUARDED_BY(interrupt_mutex_) = 0;
  u32 device_features_select_ = 0, driver_features_select_ = 0, queue_select_ = 0;
  Session session_;  // last: its destructor may still raise
};

}  // namespace bulkhead::device::virtio
