#include "device/virtio/queue/queue.h"

namespace bulkhead::device::virtio {
namespace {

template <class Ring, class Ask>
auto with(Ring& ring, Ask ask) {
  using Answer = decltype(ask(std::get<1>(ring)));
  if (auto* const split = std::get_if<SplitRing>(&ring)) return ask(*split);
  if (auto* const packed = std::get_if<PackedRing>(&ring)) return ask(*packed);
  return Answer();
}

}  // namespace

Queue::Queue(const GuestMemory& memory, FaultSink& faults, u32 max_size, ChainLimits limits)
    : faults_{&faults}, max_size_{max_size}, builder_{memory, limits} {}

bool Queue::enable(const QueueConfig& config) {
  disable();
  const GuestMemory& memory = builder_.memory();
  bool good = config.size <= max_size_;
  if (good && config.packed)
    good = ring_.emplace<PackedRing>().attach(memory, config);
  else if (good)
    good = ring_.emplace<SplitRing>().attach(memory, config);
  if (good) {
    size_ = config.size;
    config_ = config;
    return true;
  }
  ring_ = std::monostate{};
  faults_->queue_fault(Fault::kBadSetup);
  return false;
}

void Queue::disable() {
  BH_ASSERT(in_flight_ == 0);
  ring_ = std::monostate{};
  broken_ = false;
}

std::optional<Chain> Queue::pop() {
  if (broken_ || !enabled()) return std::nullopt;
  auto buffers = spare_.empty() ? std::make_unique<ChainBuffers>() : std::move(spare_.back());
  if (!spare_.empty()) spare_.pop_back();
  builder_.begin(*buffers);
  Found found = with(ring_, [&](auto& ring) { return ring.next(builder_); });
  // A driver that makes the same buffers available again and again without waiting for us.
  if (found.chain && in_flight_ >= size_) found = Found::wrong(Fault::kIndexAhead);
  if (!found.chain) {
    spare_.push_back(std::move(buffers));
    if (found.fault != Fault::kNone) fault(found.fault);
    return std::nullopt;
  }
  ++in_flight_;
  return Chain{std::move(buffers), found.id, found.ring_entries};
}

void Queue::recycle(Chain& chain) {
  BH_ASSERT(chain.buffers_ != nullptr && in_flight_ > 0);
  // The device may have written to any of it; whoever derives something from RAM hears of it before the driver does.
  for (const IoBuffer& buffer : chain.buffers_->writable) builder_.memory().note_written(buffer.data, buffer.length);
  if (chain.buffers_->taken_last != nullptr) builder_.memory().note_written(chain.buffers_->taken_last, 1);
  --in_flight_;
  spare_.push_back(std::move(chain.buffers_));
}

void Queue::push(Chain chain, u32 written) {
  recycle(chain);
  if (broken_) return;
  with(ring_, [&](auto& ring) {
    ring.complete(chain.id_, chain.ring_entries_, written);
    return true;
  });
}

void Queue::begin_together() {
  with(ring_, [](auto& ring) {
    ring.begin_together();
    return true;
  });
}

void Queue::end_together() {
  with(ring_, [](auto& ring) {
    ring.end_together();
    return true;
  });
}

void Queue::drop(Chain chain) { recycle(chain); }

bool Queue::interrupt_wanted() {
  return with(ring_, [](auto& ring) { return ring.interrupt_wanted(); });
}

void Queue::disable_notifications() {
  with(ring_, [](auto& ring) {
    ring.disable_notifications();
    return true;
  });
}

bool Queue::enable_notifications() {
  if (broken_) return false;
  return with(ring_, [](auto& ring) { return ring.enable_notifications(); });
}

void Queue::fault(Fault fault) {
  broken_ = true;
  faults_->queue_fault(fault);
}

}  // namespace bulkhead::device::virtio
