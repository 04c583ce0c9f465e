#include "device/xenbus/blk/blk_queue.h"

#include <stdint.h>
#include <string.h>
#include <xen/io/blkif.h>

namespace bulkhead::device::xenbus {
namespace {

std::vector<std::byte*> addresses(const std::vector<GrantedPage>& pages) {
  std::vector<std::byte*> list;
  for (const GrantedPage& page : pages) list.push_back(page.data());
  return list;
}

}  // namespace

BlkQueue::BlkQueue(Owner owner, unsigned index, BlkAbi abi, std::vector<GrantedPage> pages, std::size_t persistent)
    : owner_{owner},
      index_{index},
      abi_{abi},
      pages_{std::move(pages)},
      ring_{addresses(pages_), entry_bytes(abi)},
      data_pages_{owner.grants, persistent, owner.counters},
      earlier_{owner.core.disk().executor()} {}

void BlkQueue::signal() {
  if (!ring_.notify_wanted()) return;
  owner_.counters[BlkCounter::kNotifications].add();
  channel_->notify();
}

BlkQueue::Served BlkQueue::fall_asleep() {
  if (!ring_.overrun() || broken_) return Served::kAll;
  broken_ = true;
  owner_.counters[BlkCounter::kOverruns].add();
  return Served::kOverrun;
}

BlkQueue::Served BlkQueue::serve() {
  std::array<std::byte, kMaxEntryBytes> entry;
  const std::span raw = std::span{entry}.first(entry_bytes(abi_));
  for (u32 turn = 0; turn < ring_.size(); ++turn) {
    if (barrier_) return Served::kAll;
    if (ring_.take(raw))
      run(this, decode_request(abi_, raw));
    else if (ring_.sleep())
      return fall_asleep();
  }
  return Served::kSome;
}

block::Detached BlkQueue::run(BlkQueue* self, BlkRequest request) {
  const BlockService::Flight flight{self->owner_.service, self->index_};
  const bool barrier = request.operation == BLKIF_OP_WRITE_BARRIER;
  ++self->in_flight_;
  if (barrier) {
    self->barrier_ = true;
    while (self->in_flight_ != 1) co_await self->earlier_.wait();
  }
  std::unique_ptr<BlkJob> job;
  if (self->spare_.empty()) {
    const Owner& owner = self->owner_;
    job = std::make_unique<BlkJob>(owner.core, owner.grants, self->data_pages_, owner.counters);
  } else {
    job = std::move(self->spare_.back());
    self->spare_.pop_back();
  }
  const i16 status = co_await job->run(request);
  self->spare_.push_back(std::move(job));
  self->ring_.respond(encode_response(self->abi_, request, status).bytes());
  self->owner_.service.signal_soon(self->index_);
  --self->in_flight_;
  self->earlier_.wake_all();
  if (!barrier) co_return;
  self->barrier_ = false;
  self->owner_.service.kick(u64{1} << self->index_);
}

}  // namespace bulkhead::device::xenbus
