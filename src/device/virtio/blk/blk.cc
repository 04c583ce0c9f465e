#include "device/virtio/blk/blk.h"

#include <bit>
#include <cstddef>

#include "device/virtio/blk/blk_request.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using namespace spec::virtio::blk;

namespace {

u64 features_of(const BlockCore& core, unsigned queues) {
  u64 features = kFeatureSegMax | kFeatureBlkSize | kFeatureFlush | kFeatureTopology | kFeatureConfigWriteCache;
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
      write_back_{core.write_back()},
      service_{
          core,
          {.serve = [this](unsigned index) { serve(index); }, .signal = [this](unsigned index) { signal(index); }}} {
  BH_ASSERT(queues >= 1 && queues <= kMaxQueues);
}

u32 VirtioBlk::type() const { return kTypeBlock; }
u64 VirtioBlk::features() const { return features_; }

void VirtioBlk::read_config(u64 offset, std::span<std::byte> out) {
  blk::Config config = config_of(core_, static_cast<unsigned>(queue_sizes_.size()));
  config.writeback = write_back_;
  const auto bytes = std::as_bytes(std::span{&config, 1});
  for (std::size_t i = 0; i < out.size() && offset < bytes.size() && i < bytes.size() - offset; ++i)
    out[i] = bytes[offset + i];
}

// The one field that is the driver's to write [virtio-1.3 §5.2.5]; what it may be written as is 0 or 1.
void VirtioBlk::write_config(u64 offset, std::span<const std::byte> in) {
  if (offset == offsetof(blk::Config, writeback) && in.size() == 1) write_back_ = std::to_integer<u8>(in[0]) != 0;
}

void VirtioBlk::attach(DeviceHost& host, std::span<Queue> queues) {
  host_ = &host;
  queues_ = queues;
}

void VirtioBlk::start(u64 features) {
  service_.paused([&] {
    started_ = true;
    can_flush_ = features & kFeatureFlush;
    can_set_cache_ = features & kFeatureConfigWriteCache;
  });
  service_.kick((u64{1} << queues_.size()) - 1);
}

void VirtioBlk::notify(unsigned index) { service_.kick(u64{1} << index); }

void VirtioBlk::reset() {
  started_ = false;
  write_back_ = core_.write_back();
}

void VirtioBlk::signal(unsigned index) {
  if (queues_[index].interrupt_wanted()) host_->interrupt_used();
}

void VirtioBlk::serve(unsigned index) {
  if (!started_) return;
  Queue& queue = queues_[index];
  queue.disable_notifications();
  for (unsigned turn = 0; turn < kQueueSize; ++turn) {
    std::optional<Chain> chain = queue.pop();
    if (chain)
      run(this, index, std::move(*chain));
    else if (!queue.enable_notifications())
      return;
  }
  service_.kick(u64{1} << index);  // there may be more; the other queues' turn first
}

block::Detached VirtioBlk::run(VirtioBlk* self, unsigned index, Chain chain) {
  const BlockService::Flight flight{self->service_, index};
  const std::optional<u32> written = co_await run_blk_request(self->core_, chain, self->write_through());
  Queue& queue = self->queues_[index];
  if (written) {
    queue.push(std::move(chain), *written);
  } else {
    queue.drop(std::move(chain));
    queue.fault(Fault::kBadRequest);
  }
  self->service_.signal_soon(index);
}

}  // namespace bulkhead::device::virtio
