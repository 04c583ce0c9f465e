#include "device/xenbus/console/pv_console.h"

#include <stdint.h>
#include <xen/io/console.h>

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace bulkhead::device::xenbus {
namespace {

constexpr u64 kDrain = 1, kFill = 2;

// An index in the shared page. The guest may write it at any moment, ours too.
std::atomic_ref<u32> index_at(std::byte* page, std::size_t offset) {
  return std::atomic_ref{*reinterpret_cast<u32*>(page + offset)};
}

// One direction: where its indexes and bytes are.
struct Ring {
  std::size_t bytes, size, consumer, producer;
};
constexpr Ring kOut{offsetof(xencons_interface, out), sizeof(xencons_interface::out),
                    offsetof(xencons_interface, out_cons), offsetof(xencons_interface, out_prod)};
constexpr Ring kIn{offsetof(xencons_interface, in), sizeof(xencons_interface::in), offsetof(xencons_interface, in_cons),
                   offsetof(xencons_interface, in_prod)};
static_assert(sizeof(xencons_interface) <= kPageSize);

// At most `length` bytes from `index` on, without wrapping.
std::span<std::byte> piece(std::byte* page, const Ring& ring, u32 index, u32 length) {
  const std::size_t at = index & (ring.size - 1);
  return {page + ring.bytes + at, std::min<std::size_t>(length, ring.size - at)};
}

}  // namespace

PvConsole::PvConsole(ConsoleBackend* backend)
    : core_{{ConsolePortSpec{.name = "", .backend = backend, .is_console = true}}},
      work_{[this](u64 bits) { work(bits); }} {
  core_.listen([this](unsigned, ConsoleCore::Event event) {
    if (event == ConsoleCore::Event::kReadable) work_.post(kFill);
    if (event == ConsoleCore::Event::kWritable) work_.post(kDrain);
  });
}

PvConsole::~PvConsole() {
  disconnect();
  core_.listen({});
}

bool PvConsole::connect(std::byte* page, EventPort& events, u32 guest_port) {
  disconnect();
  auto channel = events.bind(guest_port, [this] { work_.post(kDrain | kFill); });
  if (channel == nullptr) return false;
  work_.exclusive([&] {
    page_ = page;
    channel_ = std::move(channel);
    core_.guest_open(0, true);
  });
  work_.post(kDrain | kFill);
  return true;
}

void PvConsole::disconnect() {
  std::unique_ptr<EventChannel> channel;  // ends outside of the work, for which its callback may be waiting
  work_.exclusive([&] {
    if (page_ != nullptr) core_.guest_open(0, false);
    page_ = nullptr;
    channel = std::move(channel_);
  });
}

void PvConsole::work(u64 bits) {
  if (page_ == nullptr) return;
  bool moved = false;
  if (bits & kDrain) moved |= drain();
  if (bits & kFill) moved |= fill();
  if (!moved) return;
  counters_[kNotifications].add();
  channel_->notify();
}

bool PvConsole::drain() {
  const std::atomic_ref<u32> consumer = index_at(page_, kOut.consumer), producer = index_at(page_, kOut.producer);
  u32 at = consumer.load(std::memory_order_relaxed);
  const u32 begin = at;
  while (true) {
    const u32 end = producer.load(std::memory_order_acquire);
    if (end - at > kOut.size) {
      // More than fits: nothing in the ring can be believed. The next byte that the guest writes counts again.
      counters_[kBadIndexes].add();
      consumer.store(end, std::memory_order_release);
      return true;
    }
    if (end == at) break;
    const std::span<const std::byte> bytes = piece(page_, kOut, at, end - at);
    const std::size_t taken = core_.from_guest(0, bytes);
    at += static_cast<u32>(taken);
    consumer.store(at, std::memory_order_release);
    if (taken < bytes.size()) break;  // the rest when the backend calls
  }
  return at != begin;
}

bool PvConsole::fill() {
  const std::atomic_ref<u32> consumer = index_at(page_, kIn.consumer), producer = index_at(page_, kIn.producer);
  u32 at = producer.load(std::memory_order_relaxed);
  const u32 begin = at;
  while (true) {
    const u32 used = at - consumer.load(std::memory_order_acquire);
    if (used > kIn.size) {
      counters_[kBadIndexes].add();
      break;
    }
    if (used == kIn.size) break;  // the guest tells when it has read
    const std::span<std::byte> room = piece(page_, kIn, at, static_cast<u32>(kIn.size) - used);
    const std::size_t got = core_.to_guest(0, room);
    if (got == 0) break;
    at += static_cast<u32>(got);
    producer.store(at, std::memory_order_release);
  }
  return at != begin;
}

}  // namespace bulkhead::device::xenbus
