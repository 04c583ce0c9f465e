#include "machine/pv/xen_disks.h"

#include <algorithm>

#include "device/core/block/block_core.h"
#include "device/xenbus/blk/blk_backend.h"

namespace bulkhead::machine {
namespace {

using namespace device::xenbus;

constexpr std::array kStates = {"unknown", "initialising", "waiting for the guest", "initialised", "connected",
                                "closing", "closed",       "reconfiguring",         "reconfigured"};

DiskRemoved removed(Unplugged how) {
  switch (how) {
    case Unplugged::kRefused:
      return DiskRemoved::kKept;
    case Unplugged::kForced:
      return DiskRemoved::kForced;
    case Unplugged::kGone:
    case Unplugged::kNoSuchDevice:  // gone between our look and the bus's
      break;
  }
  return DiskRemoved::kGone;
}

std::string device_name(const BackendBus::Status& status) {
  if (status.kind == "console") return fmt::format("hvc{}", status.id);
  for (unsigned i = 0; status.kind == "vbd" && i < XenDisks::kMost; ++i)
    if (BlkBackend::device_number(i) == status.id) return BlkBackend::device_name(i);
  return fmt::format("{}/{}", status.kind, status.id);
}

}  // namespace

XenDisks::XenDisks(BackendBus& bus, GrantPort& grants, EventPort& events, unsigned queues)
    : bus_{bus}, grants_{grants}, events_{events}, queues_{std::min(queues, BlkBackend::kMaxQueues)} {}

XenDisks::~XenDisks() = default;

Result<PluggedDisk> XenDisks::add(block::Disk& disk) {
  unsigned index = 0;
  {
    Lock lock{mutex_};
    while (index < kMost && places_[index].disk != nullptr) ++index;
  }
  return add_at(index, disk);
}

Result<PluggedDisk> XenDisks::add_at(unsigned index, block::Disk& disk) {
  if (index >= kMost) return fail("a zone has no more than {} disks; remove one first", kMost);
  BlkBackend::Options options;
  options.index = index;
  options.queues = queues_;
  std::unique_ptr<BlkBackend> backend;
  {
    Lock lock{mutex_};
    Place& place = places_[index];
    if (place.disk != nullptr) return fail("the zone has a disk {} already", BlkBackend::device_name(index));
    place.disk = &disk;
    place.core = std::make_unique<device::BlockCore>(disk);
    backend = std::make_unique<BlkBackend>(*place.core, grants_, events_, options);
  }
  auto added = bus_.add(BlkBackend::device_number(index), std::move(backend), [this, index] { vacate(index); });
  if (!added) {
    Lock lock{mutex_};
    places_[index] = {};
    return std::unexpected(std::move(added.error()));
  }
  return PluggedDisk{BlkBackend::device_name(index), index};
}

// On the bus's thread: the backend is gone.
void XenDisks::vacate(unsigned index) {
  Place place;
  std::function<void(block::Disk&)> gone;
  {
    Lock lock{mutex_};
    place = std::exchange(places_[index], {});
    gone = gone_;
  }
  place.core.reset();
  if (gone) gone(*place.disk);
}

std::string XenDisks::names() {
  Lock lock{mutex_};
  std::string all;
  for (unsigned i = 0; i < kMost; ++i)
    if (places_[i].disk != nullptr) all += (all.empty() ? "" : ", ") + BlkBackend::device_name(i);
  return all.empty() ? "none" : all;
}

Result<void> XenDisks::remove(std::string_view name, DiskRemoval how, std::function<void(DiskRemoved)> done) {
  unsigned index = 0;
  while (index < kMost && BlkBackend::device_name(index) != name) ++index;
  bool there = false;
  if (index < kMost) {
    Lock lock{mutex_};
    there = places_[index].disk != nullptr;
  }
  if (!there) return fail("the zone has no disk '{}'; its disks are: {}", name, names());
  bus_.unplug("vbd", BlkBackend::device_number(index), how == DiskRemoval::kForce ? Unplug::kForce : Unplug::kAsk,
              [done = std::move(done)](Unplugged result) { done(removed(result)); });
  return {};
}

std::vector<DiskStatistics> XenDisks::statistics() const {
  std::vector<DiskStatistics> all;
  Lock lock{mutex_};
  for (unsigned i = 0; i < kMost; ++i)
    if (places_[i].core != nullptr)
      all.push_back({BlkBackend::device_name(i), device::statistics_of(*places_[i].core)});
  return all;
}

void XenDisks::set_gone(std::function<void(block::Disk&)> gone) {
  Lock lock{mutex_};
  gone_ = std::move(gone);
}

std::vector<DeviceStatus> device_statuses(BackendBus& bus) {
  std::vector<DeviceStatus> all;
  for (const BackendBus::Status& status : bus.devices())
    all.push_back({status.kind, device_name(status), kStates.at(static_cast<std::size_t>(status.state)),
                   status.unplugging, status.problem});
  return all;
}

}  // namespace bulkhead::machine
