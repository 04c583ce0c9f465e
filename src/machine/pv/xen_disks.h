// The disks of a zone with a xenbus: each a block device backend with its core, in numbered places (xvda, xvdb, ...).
#pragma once
#include <array>
#include <functional>
#include <memory>
#include <string>

#include "base/sync.h"
#include "device/xenbus/bus/backend_bus.h"
#include "machine/machine.h"

namespace bulkhead::device {
class BlockCore;
}

namespace bulkhead::machine {

// Any thread but the bus's own. Everything given outlives us, but the bus, which we outlive and which calls us.
class XenDisks {
 public:
  static constexpr unsigned kMost = 26;

  // `queues`: how many rings a disk is offered at most; one for each vCPU.
  XenDisks(device::xenbus::BackendBus& bus, device::xenbus::GrantPort& grants, device::xenbus::EventPort& events,
           unsigned queues);
  ~XenDisks();

  Result<PluggedDisk> add(block::Disk& disk);  // in the first free place
  Result<PluggedDisk> add_at(unsigned index, block::Disk& disk);
  Result<void> remove(std::string_view name, DiskRemoval how, std::function<void(DiskRemoved)> done);
  std::vector<DiskStatistics> statistics() const;
  void set_gone(std::function<void(block::Disk&)> gone);

 private:
  struct Place {
    block::Disk* disk = nullptr;  // null: free
    std::unique_ptr<device::BlockCore> core;
  };
  void vacate(unsigned index);
  std::string names();

  device::xenbus::BackendBus& bus_;
  device::xenbus::GrantPort& grants_;
  device::xenbus::EventPort& events_;
  const unsigned queues_;
  mutable Mutex mutex_;  // never held while the bus is called
  std::array<Place, kMost> places_ BH_GUARDED_BY(mutex_);
  std::function<void(block::Disk&)> gone_ BH_GUARDED_BY(mutex_);
};

// What the bus knows of its devices, by the names that the guest has for them.
std::vector<DeviceStatus> device_statuses(device::xenbus::BackendBus& bus);

}  // namespace bulkhead::machine
