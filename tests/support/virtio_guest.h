// A guest that drives one virtio-mmio device by its registers and rings, as a kernel's driver does.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <string_view>

#include "bus/io.h"
#include "support/virtqueue_driver.h"

namespace bulkhead::test {

// An interrupt line that remembers.
class RecordingIrq final : public IrqLine {
 public:
  void set(bool asserted) override {
    if (asserted && !level_.exchange(true)) ++raised_;
    if (!asserted) level_ = false;
  }
  bool level() const { return level_; }
  unsigned raised() const { return raised_; }  // how often it went up

 private:
  std::atomic<bool> level_{false};
  std::atomic<unsigned> raised_{0};
};

class VirtioGuest {
 public:
  // Buffers and rings are allocated upwards from `heap`. All three outlive the guest.
  VirtioGuest(IoDevice& registers, const GuestMemory& memory, Gpa heap = {0x10000});

  u32 read(u64 offset);
  void write(u64 offset, u32 value);
  u64 offered_features();
  // Reset, ACKNOWLEDGE, DRIVER, features (those wanted that are offered, VERSION_1 too), FEATURES_OK. False: refused.
  bool negotiate(u64 wanted);
  // The same with ring features by option, then queues 0..count-1 of `size`, then DRIVER_OK.
  bool bring_up(u64 device_features, RingOptions rings, unsigned queues, u16 size);
  VirtqueueDriver& set_up_queue(unsigned index, u16 size, RingOptions options);
  VirtqueueDriver& queue(unsigned index) { return *queues_.at(index); }
  u8 status() { return static_cast<u8>(read(0x70)); }
  bool needs_reset() { return status() & 0x40; }

  void kick(unsigned index);                        // if the device wants to know
  VirtqueueDriver::Used wait_used(unsigned index);  // spins; for devices with a thread of their own

  Gpa allocate(u64 bytes);  // 16-byte aligned
  Gpa put(std::string_view bytes);
  std::string get(Gpa at, u64 length) const;
  const GuestMemory& memory() const { return memory_; }
  IoDevice& registers() { return registers_; }

 private:
  IoDevice& registers_;
  const GuestMemory& memory_;
  Gpa heap_;
  std::map<unsigned, std::unique_ptr<VirtqueueDriver>> queues_;
};

}  // namespace bulkhead::test
