#include "device/xenbus/blk/blk_backend.h"

#include <bit>

#include "base/assert.h"
#include "base/log.h"

namespace bulkhead::device::xenbus {

BlkBackend::BlkBackend(BlockCore& core, GrantPort& grants, EventPort& events, Options options)
    : core_{core}, grants_{grants}, events_{events}, options_{options}, worker_{"xen-blk", [this](u64 items) {
                                                                                  work(items);
                                                                                }} {
  BH_ASSERT(options.queues >= 1 && options.queues <= kMaxQueues);
}

Result<std::vector<GrantedPage>> BlkBackend::map_ring(const NodeReader& frontend, const std::string& prefix) {
  const u32 order = frontend.number("ring-page-order").value_or(0);
  if (order > kMaxRingPageOrder) return fail("ring-page-order {} is more than {}", order, kMaxRingPageOrder);
  std::vector<GrantedPage> pages;
  for (u32 i = 0; i < 1u << order; ++i) {
    std::optional<u32> reference = frontend.number(fmt::format("{}ring-ref{}", prefix, i));
    // A single page has the old name, also where the frontend knows the new ones.
    if (!reference && order == 0) reference = frontend.number(prefix + "ring-ref");
    if (!reference) return fail("{}ring-ref{} is no number", prefix, i);
    pages.emplace_back(grants_, *reference, PageAccess::kWrite);
    if (!pages.back()) return fail("{}ring-ref{}: reference {} is not granted to us", prefix, i, *reference);
  }
  return pages;
}

Result<std::unique_ptr<BlkQueue>> BlkBackend::open_queue(const NodeReader& frontend, const std::string& prefix,
                                                         BlkAbi abi) {
  BH_ASSIGN(std::vector<GrantedPage> pages, map_ring(frontend, prefix));
  const bool persistent = options_.persistent && frontend.flag("feature-persistent");
  return std::make_unique<BlkQueue>(
      abi, std::move(pages), BlkRequests{core_, grants_, persistent ? options_.kept_pages : 0, counters_}, counters_);
}

Result<void> BlkBackend::bind(BlkQueue& queue, const NodeReader& frontend, const std::string& prefix, unsigned index) {
  const std::optional<u32> port = frontend.number(prefix + "event-channel");
  if (!port) return fail("{}event-channel is no number", prefix);
  auto channel = events_.bind(*port, [this, index] { worker_.kick(u64{1} << index); });
  if (channel == nullptr) return fail("{}event-channel: port {} is not there for us", prefix, *port);
  queue.set_channel(std::move(channel));
  return {};
}

Result<Nodes> BlkBackend::connect(const NodeReader& frontend) {
  disconnect();
  const std::string protocol = frontend.text("protocol").value_or("");
  const std::optional<BlkAbi> abi = protocol.empty() ? BlkAbi::k64 : blk_abi(protocol);
  if (!abi) return fail("the protocol is neither x86_64-abi nor x86_32-abi");
  const u32 count = frontend.number("multi-queue-num-queues").value_or(1);
  if (count < 1 || count > options_.queues) return fail("{} queues, not 1 to {}", count, options_.queues);
  Queues queues;
  for (u32 i = 0; i < count; ++i) {
    const std::string prefix = count == 1 ? "" : fmt::format("queue-{}/", i);
    BH_ASSIGN(std::unique_ptr<BlkQueue> queue, open_queue(frontend, prefix, *abi));
    BH_TRY(bind(*queue, frontend, prefix, i));
    queues.push_back(std::move(queue));
  }
  worker_.start();
  worker_.paused([&] { queues_ = std::move(queues); });
  worker_.kick((u64{1} << count) - 1);  // what came before there was anybody to hear of it
  return properties();
}

void BlkBackend::disconnect() {
  Queues queues;
  worker_.paused([&] { queues.swap(queues_); });
}

void BlkBackend::work(u64 items) {
  for (; items != 0 && !worker_.stop_soon(); items &= items - 1) {
    const auto index = static_cast<unsigned>(std::countr_zero(items));
    if (index >= queues_.size()) continue;
    switch (queues_[index]->serve([this] { return worker_.stop_soon(); })) {
      case BlkQueue::Served::kAll:
        break;
      case BlkQueue::Served::kSome:
        worker_.kick(u64{1} << index);  // the other queues' turn first
        break;
      case BlkQueue::Served::kOverrun:
        report_overrun(index);
        break;
    }
  }
}

void BlkBackend::report_overrun(unsigned index) {
  if (std::exchange(overrun_reported_, true)) return;
  log_warning("{}: the guest's driver broke the ring of queue {}; that queue has stopped until it reconnects",
              device_name(options_.index), index);
}

}  // namespace bulkhead::device::xenbus
