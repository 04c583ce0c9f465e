// The devices of the machine, on their buses.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "bus/bus.h"
#include "device/acpi_pm/acpi_pm.h"
#include "device/core/block/block_core.h"
#include "device/core/console/console_core.h"
#include "device/core/net/net_core.h"
#include "device/core/rng/host_entropy.h"
#include "device/debug_exit/debug_exit.h"
#include "device/debugcon/debugcon.h"
#include "device/pit/pit.h"
#include "device/power/power.h"
#include "device/rtc/rtc.h"
#include "device/uart/uart.h"
#include "device/virtio/mmio/mmio.h"
#include "machine/microvm/interrupts.h"
#include "machine/microvm/layout.h"
#include "machine/microvm/microvm.h"
#include "machine/microvm/virtio_link.h"
#include "memory/guest_memory.h"

namespace bulkhead::machine {

class Board {
 public:
  // What the guest asks the machine for. Called on a vCPU thread within an access; must not block.
  using Finish = std::function<void(Outcome)>;

  // Everything given outlives the board. Errors: more devices than there are interrupts for.
  static Result<std::unique_ptr<Board>> create(const MicrovmConfig& config, engine::Partition& partition,
                                               const GuestMemory& memory, TimerService& timers, Finish finish);
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;

  Bus& ports() { return ports_; }
  Bus& mmio() { return mmio_; }
  // Asserts an interrupt for a moment; one that is not there is ignored. Any thread.
  void pulse(Gsi gsi);
  // The windows of the virtio devices in the order of their slots: disks, console, rng, networks, files.
  std::vector<DiskStatistics> disk_statistics() const;        // any thread
  std::vector<NetworkStatistics> network_statistics() const;  // any thread
  std::vector<VirtioMmioWindow> virtio_windows() const;

 private:
  // A serial line that leads nowhere.
  struct Nowhere final : device::ConsoleBackend {
    std::size_t write(std::span<const std::byte> data) override { return data.size(); }
    std::size_t read(std::span<std::byte>) override { return 0; }
    void set_callbacks(std::function<void()>, std::function<void()>) override {}
  };

  Board(const MicrovmConfig& config, engine::Partition& partition, const GuestMemory& memory, TimerService& timers,
        Finish finish);
  Result<void> attach_legacy(const MicrovmConfig& config);
  Result<void> attach_interrupts();
  Result<void> add_virtio_devices(const MicrovmConfig& config);
  Result<std::unique_ptr<device::virtio::VirtioDevice>> network_device(const NetDevice& network);
  bool next_has_link() const;  // the next virtio device
  Result<VirtioLink*> link(const VirtioMmioWindow& window);
  Result<void> add_virtio(std::unique_ptr<device::virtio::VirtioDevice> device,
                          device::virtio::TransportFeatures features = {});

  engine::Partition& partition_;
  const GuestMemory& memory_;
  const Finish finish_;
  Interrupts interrupts_;
  Nowhere nowhere_;
  device::Pit pit_;
  device::Rtc rtc_;
  device::Uart uart_;
  device::Power power_;
  device::AcpiPm acpi_pm_;
  device::DebugExit debug_exit_;
  std::unique_ptr<device::Debugcon> debugcon_;
  device::HostEntropy entropy_;
  std::vector<std::unique_ptr<device::BlockCore>> block_cores_;
  std::vector<std::unique_ptr<device::NetCore>> net_cores_;
  std::unique_ptr<device::ConsoleCore> console_core_;
  // A transport resets its device when it goes, so the devices come first.
  std::vector<std::unique_ptr<device::virtio::VirtioDevice>> virtio_devices_;
  std::vector<std::unique_ptr<VirtioLink>> virtio_links_;
  std::vector<std::unique_ptr<device::virtio::VirtioMmio>> virtio_transports_;
  std::unique_ptr<EventLoop> event_loop_;  // where there are links
  // One lock for all of a device's ranges.
  Mutex pic_lock_, pit_lock_, power_lock_;
  Bus ports_, mmio_;
};

}  // namespace bulkhead::machine
