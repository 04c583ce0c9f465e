// What a Xen disk says of itself in xenstore [xen/io/blkif.h]: its "Feature and Parameter Negotiation".
#include <stdint.h>
#include <string.h>
#include <xen/io/blkif.h>

#include "base/bits.h"
#include "device/xenbus/blk/blk_backend.h"

namespace bulkhead::device::xenbus {
namespace {

const char* flag(bool value) { return value ? "1" : "0"; }

bool can_discard(const BlockCore& core) { return core.supports_discard() && !core.read_only(); }

}  // namespace

u32 BlkBackend::device_number(unsigned index) {
  // The first sixteen have numbers as if they had Xen's block major and sixteen minors each.
  return index < 16 ? 202u << 8 | index << 4 : 1u << 28 | index << 8;
}

std::string BlkBackend::device_name(unsigned index) {
  std::string letters;
  for (unsigned rest = index + 1; rest > 0; rest = (rest - 1) / 26)
    letters.insert(letters.begin(), static_cast<char>('a' + (rest - 1) % 26));
  return "xvd" + letters;
}

Nodes BlkBackend::backend_nodes() const {
  return {{"params", core_.serial()},
          {"removable", "0"},
          {"bootable", "1"},
          {"dev", device_name(options_.index)},
          {"type", "file"},
          {"mode", core_.read_only() ? "r" : "w"},
          {"device-type", "disk"},
          {"discard-enable", flag(can_discard(core_))},
          {"hotplug-status", "connected"}};
}

Nodes BlkBackend::frontend_nodes() const {
  return {{"virtual-device", std::to_string(device_number(options_.index))}, {"device-type", "disk"}, {"trusted", "1"}};
}

Nodes BlkBackend::features() const {
  Nodes nodes{{"feature-barrier", "1"},
              {"feature-flush-cache", "1"},
              {"feature-persistent", flag(options_.persistent)},
              {"feature-max-indirect-segments", std::to_string(BlkJob::kMaxIndirectSegments)},
              {"feature-discard", flag(can_discard(core_))},
              {"max-ring-page-order", std::to_string(kMaxRingPageOrder)},
              {"multi-queue-max-queues", std::to_string(options_.queues)}};
  if (can_discard(core_))
    nodes.insert(nodes.end(), {{"discard-granularity", std::to_string(core_.geometry().physical_block_bytes)},
                               {"discard-alignment", "0"},
                               {"discard-secure", "0"}});
  return nodes;
}

Nodes BlkBackend::properties() const {
  constexpr u32 kSectorBytes = block::kSectorSize;
  // It must divide the size.
  const u32 physical = core_.geometry().physical_block_bytes;
  const bool divides = core_.sectors() * kSectorBytes % physical == 0;
  return {{"sectors", std::to_string(core_.sectors())},
          {"info", std::to_string(core_.read_only() ? VDISK_READONLY : 0)},
          {"sector-size", std::to_string(kSectorBytes)},
          {"physical-sector-size", std::to_string(divides ? physical : kSectorBytes)}};
}

}  // namespace bulkhead::device::xenbus
