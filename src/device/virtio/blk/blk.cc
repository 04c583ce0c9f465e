#include "device/virtio/blk/blk.h"

#include <bit>
#include <cstring>

#include "base/clock.h"
#include "device/virtio/blk/blk_request.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using namespace spec::virtio::blk;

namespace {

// Completions may wait for company this long before the driver hears of them, and no longer.
constexpr Nanoseconds kSignalDelay = 100'000;

u64 features_of(const BlockCore& core, unsigned queues) {
  u64 features = kFeatureSegMax | kFeatureBlkSize | kFeatureFlush | kFeatureTopology;
  if (queues > 1) features |= kFeatureMultiQueue;
  if (core.read_only()) return features | kFeatureReadOnly;
  return features | kFeatureWriteZeroes | (core.supports_discard() ? kFeatureDiscard : 0);
}

blk::Config config_of(const BlockCore& core, unsigned queues) {
  const BlockGeometry& geometry = core.geometry();
  blk::Config config{};
  config.capacity = core.sectors();
  config.seg_max = VirtioBlk::kMaxDataSegments;
  config.blk_size = geometry.logical_block_bytes;
  config.physical_block_exp =
      static_cast<u8>(std::countr_zero(geometry.physical_block_bytes / geometry.logical_block_bytes));
  config.min_io_size = static_cast<u16>(geometry.physical_block_bytes / geometry.logical_block_bytes);
  config.opt_io_size = geometry.optimal_io_bytes / geometry.logical_block_bytes;
  config.writeback = 1;
  config.num_queues = static_cast<u16>(queues);
  config.max_discard_sectors = config.max_write_zeroes_sectors = BlockCore::kMaxRangeSectors;
  config.max_discard_seg = config.max_write_zeroes_seg = kMaxRangeSegments;
  config.discard_sector_alignment = geometry.physical_block_bytes / blk::kSectorSize;
  config.write_zeroes_may_unmap = 1;
  return config;
}

}  // namespace

VirtioBlk::VirtioBlk(BlockCore& core, unsigned queues)
    : core_{core},
      queue_sizes_(queues, kQueueSize),
      features_{features_of(core, queues)},
      worker_{"virtio-blk", [this](u64 items) { work(items); }} {
  BH_ASSERT(queues >= 1 && queues <= kMaxQueues);
}

u32 VirtioBlk::type() const { return kTypeBlock; }
u64 VirtioBlk::features() const { return features_; }

void VirtioBlk::read_config(u64 offset, std::span<std::byte> out) {
  const blk::Config config = config_of(core_, static_cast<unsigned>(queue_sizes_.size()));
  const auto bytes = std::as_bytes(std::span{&config, 1});
  for (std::size_t i = 0; i < out.size() && offset < bytes.size() && i < bytes.size() - offset; ++i)
    out[i] = bytes[offset + i];
}

void VirtioBlk::attach(DeviceHost& host, std::span<Queue> queues) {
  host_ = &host;
  queues_ = queues;
}

void VirtioBlk::start(u64 features) {
  worker_.start();
  worker_.paused([&] {
    started_ = true;
    write_through_ = !(features & kFeatureFlush);
  });
  worker_.kick((u64{1} << queues_.size()) - 1);
}

void VirtioBlk::notify(unsigned index) { worker_.kick(u64{1} << index); }

void VirtioBlk::reset() { started_ = write_through_ = false; }

void VirtioBlk::work(u64 items) {
  if (!started_) return;
  for (; items != 0 && !worker_.stop_soon(); items &= items - 1) serve(static_cast<unsigned>(std::countr_zero(items)));
}

void VirtioBlk::signal(Queue& queue) {
  if (queue.interrupt_wanted()) host_->interrupt_used();
}

void VirtioBlk::serve(unsigned index) {
  Queue& queue = queues_[index];
  const HostClock clock;
  Nanoseconds last_signal = clock.now();
  queue.disable_notifications();
  for (unsigned turn = 0; turn < kQueueSize && !worker_.stop_soon(); ++turn) {
    if (!run_next(queue) && !queue.enable_notifications()) return signal(queue);
    const Nanoseconds now = clock.now();
    if (now - last_signal < kSignalDelay) continue;
    signal(queue);
    last_signal = now;
  }
  signal(queue);
  worker_.kick(u64{1} << index);  // there may be more; the other queues' turn first
}

bool VirtioBlk::run_next(Queue& queue) {
  std::optional<Chain> chain = queue.pop();
  if (!chain) return false;
  if (const std::optional<u32> written = run_blk_request(core_, *chain, write_through_)) {
    queue.push(std::move(*chain), *written);
    return true;
  }
  queue.drop(std::move(*chain));
  queue.fault(Fault::kBadRequest);
  return false;
}

}  // namespace bulkhead::device::virtio
