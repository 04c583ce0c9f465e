#include "device/xenbus/blk/blk_backend.h"

#include "base/assert.h"
#include "base/log.h"

namespace bulkhead::device::xenbus {

BlkBackend::BlkBackend(BlockCore& core, GrantPort& grants, EventPort& events, Options options)
    : core_{core},
      grants_{grants},
      events_{events},
      options_{options},
      service_{core,
               {.serve = [this](unsigned index) { serve(index); },
                .signal = [this](unsigned index) { queues_[index]->signal(); }}} {
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
                                                         unsigned index, BlkAbi abi) {
  BH_ASSIGN(std::vector<GrantedPage> pages, map_ring(frontend, prefix));
  const bool persistent = options_.persistent && frontend.flag("feature-persistent");
  return std::make_unique<BlkQueue>(BlkQueue::Owner{core_, grants_, counters_, service_}, index, abi, std::move(pages),
                                    persistent ? options_.kept_pages : 0);
}

Result<void> BlkBackend::bind(BlkQueue& queue, const NodeReader& frontend, const std::string& prefix, unsigned index) {
  const std::optional<u32> port = frontend.number(prefix + "event-channel");
  if (!port) return fail("{}event-channel is no number", prefix);
  auto channel = events_.bind(*port, [this, index] { service_.kick(u64{1} << index); });
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
    BH_ASSIGN(std::unique_ptr<BlkQueue> queue, open_queue(frontend, prefix, i, *abi));
    BH_TRY(bind(*queue, frontend, prefix, i));
    queues.push_back(std::move(queue));
  }
  service_.paused([&] { queues_ = std::move(queues); });
  service_.kick((u64{1} << count) - 1);  // what came before there was anybody to hear of it
  return properties();
}

void BlkBackend::disconnect() {
  Queues queues;
  service_.abandon_waiting();
  service_.paused([&] { queues.swap(queues_); });
}

void BlkBackend::serve(unsigned index) {
  if (index >= queues_.size()) return;
  switch (queues_[index]->serve()) {
    case BlkQueue::Served::kAll:
      break;
    case BlkQueue::Served::kSome:
      service_.kick(u64{1} << index);  // the other queues' turn first
      break;
    case BlkQueue::Served::kOverrun:
      report_overrun(index);
      break;
  }
}

void BlkBackend::report_overrun(unsigned index) {
  if (std::exchange(overrun_reported_, true)) return;
  log_warning("{}: the guest's driver broke the ring of queue {}; that queue has stopped until it reconnects",
              device_name(options_.index), index);
}

}  // namespace bulkhead::device::xenbus
