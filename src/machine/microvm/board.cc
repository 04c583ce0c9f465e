#include "machine/microvm/board.h"

#include <algorithm>
#include <utility>

#include "device/virtio/blk/blk.h"
#include "device/virtio/console/console.h"
#include "device/virtio/fs/fs.h"
#include "device/virtio/net/net.h"
#include "device/virtio/rng/rng.h"
#include "spec/acpi.h"
#include "spec/acpi_ports.h"

namespace bulkhead::machine {
namespace {
using Kind = Outcome::Kind;
}  // namespace

Board::Board(const MicrovmConfig& config, engine::Partition& partition, const GuestMemory& memory, TimerService& timers,
             Finish finish)
    : partition_{partition},
      memory_{memory},
      finish_{std::move(finish)},
      interrupts_{partition},
      pit_{timers, interrupts_.isa(layout::kPitIrq)},
      rtc_{timers, interrupts_.isa(layout::kRtcIrq)},
      uart_{config.uart != nullptr ? *config.uart : nowhere_, interrupts_.isa(layout::kUartIrq)},
      power_{{.power_off = [this] { finish_({Kind::kPowerOff, 0, {}}); },
              .reset = [this] { finish_({Kind::kReset, 0, {}}); }}},
      acpi_pm_{timers.clock(), interrupts_.gsi(kSciGsi), [this] { finish_({Kind::kPowerOff, 0, {}}); }},
      debug_exit_{[this](u8 status) { finish_({Kind::kDebugExit, status, {}}); }} {
  if (config.debugcon != nullptr) debugcon_ = std::make_unique<device::Debugcon>(*config.debugcon);
}

Result<std::unique_ptr<Board>> Board::create(const MicrovmConfig& config, engine::Partition& partition,
                                             const GuestMemory& memory, TimerService& timers, Finish finish) {
  std::unique_ptr<Board> board{new Board{config, partition, memory, timers, std::move(finish)}};
  BH_TRY(board->attach_legacy(config));
  BH_TRY(board->add_virtio_devices(config));
  if (board->event_loop_ != nullptr) board->event_loop_->start();
  return board;
}

Result<void> Board::attach_legacy(const MicrovmConfig& config) {
  using device::Debugcon, device::DebugExit, device::Pit, device::Rtc, device::Uart;
  namespace acpi = spec::acpi;
  if (!interrupts_.are_the_engines()) BH_TRY(attach_interrupts());
  BH_TRY(ports_.attach(Pit::kPort, pit_.ports().size(), pit_.ports(), pit_lock_));
  BH_TRY(ports_.attach(Pit::kPortB, pit_.port_b().size(), pit_.port_b(), pit_lock_));
  BH_TRY(ports_.attach(Rtc::kPort, Rtc::kPorts, rtc_.ports()));
  BH_TRY(ports_.attach(Uart::kCom1, Uart::kPorts, uart_.ports()));
  BH_TRY(ports_.attach(acpi::kSleepControlPort, 2, power_.sleep(), power_lock_));
  BH_TRY(ports_.attach(acpi::kResetPort, 1, power_.reset_control(), power_lock_));
  BH_TRY(ports_.attach(acpi::kKeyboardCommandPort, 1, power_.keyboard(), power_lock_));
  BH_TRY(ports_.attach(acpi::kPm1ControlPort, device::AcpiPm::kPorts, acpi_pm_));
  if (config.debug_exit) BH_TRY(ports_.attach(DebugExit::kPort, DebugExit::kPorts, debug_exit_));
  if (debugcon_ != nullptr) BH_TRY(ports_.attach(Debugcon::kPort, 1, debugcon_->port()));
  return {};
}

Result<void> Board::attach_interrupts() {
  using device::IoApic, device::Pic;
  BH_TRY(ports_.attach(Pic::kMasterPort, 2, interrupts_.pic().master(), pic_lock_));
  BH_TRY(ports_.attach(Pic::kSlavePort, 2, interrupts_.pic().slave(), pic_lock_));
  BH_TRY(ports_.attach(Pic::kElcrPort, 2, interrupts_.pic().elcr(), pic_lock_));
  return mmio_.attach(layout::kIoApic.value, IoApic::kSize, interrupts_.ioapic());
}

Result<void> Board::add_virtio_devices(const MicrovmConfig& config) {
  using namespace device::virtio;
  const unsigned queues = std::min(config.vcpus, VirtioBlk::kMaxQueues);
  for (block::Disk* const disk : config.disks) {
    block_cores_.push_back(std::make_unique<device::BlockCore>(*disk));
    BH_TRY(add_virtio(std::make_unique<VirtioBlk>(*block_cores_.back(), queues)));
  }
  if (!config.console_ports.empty()) {
    if (config.console_ports.size() > VirtioConsole::kMaxPorts)
      return fail("{} console ports are more than the {} that a virtio console has", config.console_ports.size(),
                  VirtioConsole::kMaxPorts);
    std::vector<device::ConsolePortSpec> ports;
    for (const auto& port : config.console_ports) ports.push_back({port.name, port.backend, port.is_console});
    console_core_ = std::make_unique<device::ConsoleCore>(std::move(ports));
    BH_TRY(add_virtio(std::make_unique<VirtioConsole>(*console_core_)));
  }
  if (config.rng) BH_TRY(add_virtio(std::make_unique<VirtioRng>(entropy_)));
  for (const NetDevice& network : config.networks) {
    net_cores_.push_back(std::make_unique<device::NetCore>(*network.end, network.settings));
    BH_ASSIGN(auto made, network_device(network));
    // vhost-net knows no packed rings.
    BH_TRY(add_virtio(std::move(made), {.packed = !net_cores_.back()->in_kernel()}));
  }
  if (config.files != nullptr) BH_TRY(add_virtio(std::make_unique<VirtioFs>(*config.files, config.files_tag)));
  return {};
}

bool Board::next_has_link() const {
  const std::size_t number = virtio_devices_.size();
  return number < layout::kVirtioGsis.size() &&
         VirtioLink::possible(partition_, layout::virtio_window(static_cast<unsigned>(number)));
}

Result<std::unique_ptr<device::virtio::VirtioDevice>> Board::network_device(const NetDevice& network) {
  using device::virtio::VirtioNet;
  device::NetCore& core = *net_cores_.back();
  if (network.vhost == nullptr) return std::make_unique<VirtioNet>(core);
  if (next_has_link()) {
    core.set_in_kernel();
    return std::make_unique<VirtioNet>(core, *network.vhost, memory_);
  }
  if (network.vhost_is_asked_for)
    return fail("vhost=on: this engine takes every notification itself; it is for the engine kvm, or say vhost=auto");
  return std::make_unique<VirtioNet>(core);
}

Result<void> Board::add_virtio(std::unique_ptr<device::virtio::VirtioDevice> device,
                               device::virtio::TransportFeatures features) {
  const auto number = static_cast<unsigned>(virtio_devices_.size());
  if (number >= layout::kVirtioGsis.size())
    return fail("the machine microvm has room for {} virtio devices in all: use fewer disks or networks",
                layout::kVirtioGsis.size());
  const VirtioMmioWindow window = layout::virtio_window(number);
  BH_ASSIGN(VirtioLink* const link, this->link(window));
  virtio_devices_.push_back(std::move(device));
  virtio_transports_.push_back(std::make_unique<device::virtio::VirtioMmio>(
      *virtio_devices_.back(), memory_, link != nullptr ? link->line() : interrupts_.gsi(window.gsi), features));
  device::virtio::VirtioMmio& transport = *virtio_transports_.back();
  if (link == nullptr) return mmio_.attach(window.base.value, window.size, transport);
  BH_TRY(link->connect(transport, *event_loop_));
  return mmio_.attach(window.base.value, window.size, transport, link->lock());
}

Result<VirtioLink*> Board::link(const VirtioMmioWindow& window) {
  BH_ASSIGN(auto link, VirtioLink::create(partition_, interrupts_.ioapic(), window));
  virtio_links_.push_back(std::move(link));
  if (virtio_links_.back() != nullptr && event_loop_ == nullptr) {
    BH_ASSIGN(event_loop_, EventLoop::create());
  }
  return virtio_links_.back().get();
}

std::vector<VirtioMmioWindow> Board::virtio_windows() const {
  std::vector<VirtioMmioWindow> windows;
  for (unsigned i = 0; i < virtio_devices_.size(); ++i) {
    windows.push_back(layout::virtio_window(i));
    windows.back().edge = virtio_links_[i] != nullptr;
  }
  return windows;
}

std::vector<DiskStatistics> Board::disk_statistics() const {
  std::vector<DiskStatistics> all;
  for (const auto& core : block_cores_)
    all.push_back({std::string{"vd"} + static_cast<char>('a' + all.size()), device::statistics_of(*core)});
  return all;
}

std::vector<NetworkStatistics> Board::network_statistics() const {
  std::vector<NetworkStatistics> all;
  for (const auto& core : net_cores_) all.push_back({fmt::format("net{}", all.size()), device::statistics_of(*core)});
  return all;
}

void Board::pulse(Gsi gsi) {
  constexpr u32 kLines = 24, kTimer = 0, kTimerOnIoApic = 2;
  if (gsi.value < kLines && gsi.value != kTimer && gsi.value != kTimerOnIoApic) interrupts_.gsi(gsi).pulse();
}

}  // namespace bulkhead::machine
