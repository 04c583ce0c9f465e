#include "device/virtio/net/net.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using namespace spec::virtio::net;
using bulkhead::net::FrameHeader, bulkhead::net::Offloads;

namespace {

std::vector<u16> sizes_for(const NetCore& core) {
  std::vector<u16> sizes(2 * core.pair_count(), VirtioNet::kQueueSize);
  sizes.push_back(VirtioNet::kControlQueueSize);
  return sizes;
}

// What a driver with these features may ask for, and what it takes.
Offloads out_offloads(u64 features) {
  Offloads all = 0;
  if (features & kFeatureChecksum) all |= bulkhead::net::kChecksum;
  if (features & kFeatureHostTso4) all |= bulkhead::net::kTso4;
  if (features & kFeatureHostTso6) all |= bulkhead::net::kTso6;
  if (features & kFeatureHostEcn) all |= bulkhead::net::kTsoEcn;
  if (features & kFeatureHostUso) all |= bulkhead::net::kUso;
  return all;
}

}  // namespace

Offloads VirtioNet::in_offloads(u64 features) {
  if (!(features & kFeatureGuestChecksum)) return 0;  // all the others need it [virtio-1.3 §5.1.3.1]
  Offloads all = bulkhead::net::kChecksum;
  if (features & kFeatureGuestTso4) all |= bulkhead::net::kTso4;
  if (features & kFeatureGuestTso6) all |= bulkhead::net::kTso6;
  if (features & kFeatureGuestEcn) all |= bulkhead::net::kTsoEcn;
  if ((features & kFeatureGuestUso4) && (features & kFeatureGuestUso6)) all |= bulkhead::net::kUso;
  return all;
}

VirtioNet::VirtioNet(NetCore& core)
    : core_{core}, queue_sizes_{sizes_for(core)}, pairs_(core.pair_count()), mac_{core.mac()} {
  core_.set_link_changed([this] { host_->config_changed(); });
}

VirtioNet::VirtioNet(NetCore& core, bulkhead::net::Vhost& vhost, const GuestMemory& memory)
    : core_{core},
      vhost_{&vhost},
      memory_{&memory},
      queue_sizes_{sizes_for(core)},
      pairs_(core.pair_count()),
      mac_{core.mac()} {
  core_.set_link_changed([this] { host_->config_changed(); });
}

VirtioNet::~VirtioNet() {
  if (vhost_ != nullptr) vhost_->unwatch();
  core_.set_link_changed({});
}

u32 VirtioNet::type() const { return kTypeNetwork; }

u64 VirtioNet::features() const {
  if (vhost_ != nullptr) return kernel_features();
  return kGuestOffloads | kFeatureChecksum | kFeatureHostTso4 | kFeatureHostTso6 | kFeatureHostEcn | kFeatureHostUso |
         kFeatureGuestOffloads | kFeatureMtu | kFeatureMac | kFeatureMergeable | kFeatureStatus | kFeatureControl |
         kFeatureControlRx | kFeatureControlMac | (core_.pair_count() > 1 ? kFeatureMultiQueue : 0);
}

void VirtioNet::read_config(u64 offset, std::span<std::byte> out) {
  spec::virtio::net::Config config{};
  std::ranges::copy(core_.mac(), config.mac);
  config.status = core_.link_up() ? kStatusLinkUp : 0;
  config.max_virtqueue_pairs = static_cast<u16>(core_.pair_count());
  config.mtu = core_.mtu();
  const auto bytes = std::as_bytes(std::span{&config, 1});
  for (std::size_t i = 0; i < out.size() && offset < bytes.size() && i < bytes.size() - offset; ++i)
    out[i] = bytes[offset + i];
}

void VirtioNet::attach(DeviceHost& host, std::span<Queue> queues) {
  host_ = &host;
  queues_ = queues;
}

unsigned VirtioNet::control_index() const { return features_ & kFeatureMultiQueue ? 2 * core_.pair_count() : 2; }

void VirtioNet::start(u64 features) {
  features_ = features;
  mergeable_ = features & kFeatureMergeable;
  started_ = true;
  if (vhost_ != nullptr) return start_kernel();
  core_.start(*this, 1, out_offloads(features), in_offloads(features));
}

void VirtioNet::notify(unsigned index) {
  if (index == control_index() && (features_ & kFeatureControl)) return serve_control();
  if (index >= 2 * core_.pair_count()) return;
  if (vhost_ != nullptr) return pass_on(index);
  if (index % 2 == 0) return core_.kick_in(index / 2);
  core_.kick_out(index / 2);
}

void VirtioNet::stop_queue(unsigned index) {
  if (index >= 2 * core_.pair_count()) return;
  if (vhost_ != nullptr) return stop_ring(index);
  Pair& pair = pairs_[index / 2];
  if (index % 2 != 0) {
    if (pair.out) out_queue(index / 2).drop(std::move(*pair.out));
    pair.out.reset();
    pair.out_quiet = false;
    return core_.forget_out(index / 2);
  }
  for (Chain& chain : pair.in) in_queue(index / 2).drop(std::move(chain));
  pair.in.clear();
  pair.in_bytes = 0;
  pair.in_quiet = false;
}

void VirtioNet::reset() {
  core_.halt();
  if (vhost_ != nullptr) vhost_->stop();
  started_ = mergeable_ = false;
  features_ = 0;
  filter_ = {};
  mac_ = core_.mac();
}

// ---- from the guest

VirtioNet::Next VirtioNet::next_out(unsigned index, OutgoingFrame& frame) {
  Pair& pair = pairs_[index];
  Queue& queue = out_queue(index);
  if (!std::exchange(pair.out_quiet, true)) queue.disable_notifications();
  pair.out = queue.pop();
  if (!pair.out) return Next::kNone;
  Chain& chain = *pair.out;
  std::array<std::byte, kHeaderBytes> header;
  if (chain.writable_bytes() != 0 || !chain.take(header)) {
    out_done(index);
    return Next::kBad;
  }
  std::memcpy(&frame.header, header.data(), sizeof frame.header);
  frame.pieces.assign(chain.readable().begin(), chain.readable().end());
  frame.bytes = chain.readable_bytes();
  return Next::kFrame;
}

void VirtioNet::out_done(unsigned index) {
  BH_ASSERT(pairs_[index].out);
  out_queue(index).push(std::move(*pairs_[index].out), 0);
  pairs_[index].out.reset();
}

bool VirtioNet::sleep_out(unsigned index) {
  pairs_[index].out_quiet = false;
  return !out_queue(index).enable_notifications();
}

// ---- to the guest

bool VirtioNet::sleep_in(unsigned index) {
  pairs_[index].in_quiet = false;
  return !in_queue(index).enable_notifications();
}

NetRings::Put VirtioNet::collect_room(unsigned index, u64 bytes) {
  Pair& pair = pairs_[index];
  Queue& queue = in_queue(index);
  if (!std::exchange(pair.in_quiet, true)) queue.disable_notifications();
  while (pair.in_bytes < bytes) {
    if (!mergeable_ && !pair.in.empty()) return Put::kTooLarge;
    if (pair.in.size() >= queue.size() && queue.size() != 0) return Put::kTooLarge;  // all that it has is not enough
    std::optional<Chain> chain = queue.pop();
    if (!chain) return Put::kNoRoom;
    if (chain->writable_bytes() == 0 || chain->readable_bytes() != 0) {
      queue.push(std::move(*chain), 0);
      continue;
    }
    pair.in_bytes += chain->writable_bytes();
    pair.in.push_back(std::move(*chain));
  }
  return Put::kDone;
}

void VirtioNet::fill(unsigned index, const FrameHeader& header, std::span<const std::byte> frame) {
  Pair& pair = pairs_[index];
  Queue& queue = in_queue(index);
  std::array<std::byte, kHeaderBytes> head{};
  std::memcpy(head.data(), &header, sizeof header);
  const u16 count = static_cast<u16>(pair.in.size());
  std::memcpy(&head[kBufferCountAt], &count, sizeof count);
  std::span<const std::byte> rest_of_head{head}, rest = frame;
  queue.begin_together();
  for (Chain& chain : pair.in) {
    u32 written = 0;
    for (const IoBuffer& buffer : chain.writable()) {
      std::span<std::byte> room{buffer.data, buffer.length};
      for (std::span<const std::byte>* const from : {&rest_of_head, &rest}) {
        const std::size_t size = std::min(room.size(), from->size());
        if (size == 0) continue;
        std::memcpy(room.data(), from->data(), size);
        *from = from->subspan(size);
        room = room.subspan(size);
        written += static_cast<u32>(size);
      }
    }
    queue.push(std::move(chain), written);
  }
  queue.end_together();
  pair.in.clear();
  pair.in_bytes = 0;
}

NetRings::Put VirtioNet::put_in(unsigned index, const FrameHeader& header, std::span<const std::byte> frame) {
  if (!filter_.wants(frame, mac_)) {
    counters_[kFiltered].add();
    return Put::kUnwanted;
  }
  const Put room = collect_room(index, kHeaderBytes + frame.size());
  if (room == Put::kDone) fill(index, header, frame);
  return room;
}

void VirtioNet::signal(unsigned index) {
  const bool out = out_queue(index).interrupt_wanted();
  if (in_queue(index).interrupt_wanted() || out) host_->interrupt_used();
}

}  // namespace bulkhead::device::virtio
