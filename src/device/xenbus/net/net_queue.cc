#include "device/xenbus/net/net_queue.h"

#include <stdint.h>
#include <string.h>
#include <xen/io/netif.h>

#include <algorithm>
#include <cstring>

#include "net/offload/transport.h"

namespace bulkhead::device::xenbus {

using net::FrameHeader;

namespace {

constexpr u32 kOutEntry = std::max(sizeof(netif_tx_request), sizeof(netif_tx_response));
constexpr u32 kInEntry = std::max(sizeof(netif_rx_request), sizeof(netif_rx_response));
static_assert(kOutEntry == 12 && kInEntry == 8 && sizeof(netif_extra_info) == 8);
constexpr std::size_t kHeaderRoom = 256;  // of a frame, where its headers are looked for

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span{&value, 1});
}

}  // namespace

NetQueue::NetQueue(GrantPort& grants, telemetry::CounterSet& counters, GrantedPage out, GrantedPage in, bool scatter)
    : grants_{grants},
      counters_{counters},
      out_page_{std::move(out)},
      in_page_{std::move(in)},
      out_ring_{{out_page_.data()}, kOutEntry},
      in_ring_{{in_page_.data()}, kInEntry},
      scatter_{scatter} {}

// ---- from the guest

bool NetQueue::take(Slot& slot) {
  netif_tx_request request;
  if (!out_ring_.take(std::as_writable_bytes(std::span{&request, 1}))) return false;
  slot = {request.gref, request.offset, request.flags, request.id, request.size};
  answers_.emplace_back(slot.id);
  return true;
}

bool NetQueue::take_extras(OutgoingFrame& frame, bool more) {
  bool good = true;
  for (unsigned count = 0; more; ++count) {
    std::byte entry[kOutEntry];
    if (count >= XEN_NETIF_EXTRA_TYPE_MAX || !out_ring_.take(entry)) return false;
    answers_.emplace_back();
    netif_extra_info extra;
    std::memcpy(&extra, entry, sizeof extra);
    more = extra.flags & XEN_NETIF_EXTRA_FLAG_MORE;
    if (extra.type != XEN_NETIF_EXTRA_TYPE_GSO) continue;  // hashes, and what we have not offered
    const u8 kind = extra.u.gso.type;
    good = good && (kind == XEN_NETIF_GSO_TYPE_TCPV4 || kind == XEN_NETIF_GSO_TYPE_TCPV6);
    frame.header.gso = kind == XEN_NETIF_GSO_TYPE_TCPV4 ? net::kGsoTcp4 : net::kGsoTcp6;
    frame.header.segment_bytes = extra.u.gso.size;
  }
  return good;
}

// The first request has the whole frame's size, the others their own.
bool NetQueue::take_rest(u16 flags) {
  u32 rest = 0;
  while (flags & NETTXF_more_data) {
    Slot slot;
    if (slots_.size() >= kMaxSlots || !take(slot)) return false;
    rest += slot.size;
    flags = slot.flags;
    slots_.push_back(slot);
  }
  if (rest >= slots_[0].size && !(rest == 0 && slots_[0].size == 0)) return false;
  slots_[0].size = static_cast<u16>(slots_[0].size - rest);
  return std::ranges::all_of(slots_, [](const Slot& one) { return u32{one.offset} + one.size <= kPageSize; });
}

bool NetQueue::map(OutgoingFrame& frame) {
  for (const Slot& slot : slots_) {
    pages_.emplace_back(grants_, slot.reference, PageAccess::kRead);
    if (!pages_.back()) {
      counters_[kBadGrants].add();
      return false;
    }
    frame.pieces.push_back({pages_.back().data() + slot.offset, slot.size});
    frame.bytes += slot.size;
  }
  return true;
}

// Xen's rings say that a checksum is to be made, and not where.
bool NetQueue::find_checksum(OutgoingFrame& frame) const {
  std::byte head[kHeaderRoom];
  std::size_t have = 0;
  for (const net::IoBuffer& piece : frame.pieces) {
    const std::size_t size = std::min<u64>(sizeof head - have, piece.length);
    std::memcpy(head + have, piece.data, size);
    have += size;
  }
  const auto found = net::find_transport(std::span{head}.first(have));
  if (!found || (found->protocol != net::kTcp && found->protocol != net::kUdp)) return false;
  frame.header.flags = net::kNeedsChecksum;
  frame.header.checksum_start = static_cast<u16>(found->transport);
  frame.header.checksum_offset = found->checksum_offset();
  return true;
}

NetRings::Next NetQueue::next_out(OutgoingFrame& frame) {
  Slot first;
  slots_.clear();
  if (!take(first)) return NetRings::Next::kNone;
  frame.header = {};
  frame.pieces.clear();
  frame.bytes = 0;
  slots_.push_back(first);
  bool good = take_extras(frame, first.flags & NETTXF_extra_info) && take_rest(first.flags);
  if (!good) counters_[kBadRequests].add();
  good = good && map(frame);
  if (good && (first.flags & NETTXF_csum_blank)) good = find_checksum(frame);
  if (good) return NetRings::Next::kFrame;
  answer(false);
  return NetRings::Next::kBad;
}

void NetQueue::answer(bool good) {
  pages_.clear();
  for (const std::optional<u16>& id : answers_) {
    const i16 status = !id ? NETIF_RSP_NULL : good ? NETIF_RSP_OKAY : NETIF_RSP_ERROR;
    out_ring_.respond(bytes_of(netif_tx_response{id.value_or(0), status}));
  }
  answers_.clear();
}

// ---- to the guest

void NetQueue::respond_in(const Room& room, u16 flags, i16 status) {
  in_ring_.respond(bytes_of(netif_rx_response{room.id, 0, flags, status}));
}

NetRings::Put NetQueue::put_in(const FrameHeader& header, std::span<const std::byte> frame) {
  const bool cut = header.gso != net::kGsoNone;
  const std::size_t pieces = std::max<std::size_t>((frame.size() + kPageSize - 1) / kPageSize, 1);
  const std::size_t slots = pieces + (cut ? 1 : 0);
  if ((pieces > 1 && !scatter_) || slots > in_ring_.size()) return NetRings::Put::kTooLarge;
  while (room_.size() < slots) {
    netif_rx_request request;
    if (!in_ring_.take(std::as_writable_bytes(std::span{&request, 1}))) return NetRings::Put::kNoRoom;
    room_.push_back({request.gref, request.id});
  }
  room_pages_.clear();
  for (std::size_t i = 0; i < slots; ++i) {
    if (cut && i == 1) continue;  // extra information takes a request, and not its page
    room_pages_.emplace_back(grants_, room_[i].reference, PageAccess::kWrite);
  }
  if (!std::ranges::all_of(room_pages_, [](const GrantedPage& page) { return bool{page}; })) {
    counters_[kBadGrants].add();
    room_pages_.clear();
    for (std::size_t i = 0; i < slots; ++i) respond_in(room_[i], 0, NETIF_RSP_ERROR);
    room_.erase(room_.begin(), room_.begin() + static_cast<std::ptrdiff_t>(slots));
    return NetRings::Put::kUnwanted;
  }
  for (std::size_t i = 0; i < pieces; ++i) {
    const auto piece = frame.subspan(i * kPageSize, std::min(frame.size() - i * kPageSize, kPageSize));
    std::memcpy(room_pages_[i].data(), piece.data(), piece.size());
  }
  room_pages_.clear();  // whoever derives something from the pages hears of it before the frontend does
  for (std::size_t i = 0; i < pieces; ++i) {
    u16 flags = i + 1 < pieces ? NETRXF_more_data : 0;
    if (i == 0 && (header.flags & net::kNeedsChecksum)) flags |= NETRXF_csum_blank | NETRXF_data_validated;
    if (i == 0 && (header.flags & net::kDataValid)) flags |= NETRXF_data_validated;
    if (i == 0 && cut) flags |= NETRXF_extra_info;
    const std::size_t size = std::min(frame.size() - i * kPageSize, kPageSize);
    respond_in(room_.front(), flags, static_cast<i16>(size));
    room_.pop_front();
    if (i != 0 || !cut) continue;
    netif_extra_info extra{};
    extra.type = XEN_NETIF_EXTRA_TYPE_GSO;
    extra.u.gso.size = header.segment_bytes;
    extra.u.gso.type = header.gso == net::kGsoTcp4 ? XEN_NETIF_GSO_TYPE_TCPV4 : XEN_NETIF_GSO_TYPE_TCPV6;
    in_ring_.respond(bytes_of(extra));
    room_.pop_front();
  }
  return NetRings::Put::kDone;
}

void NetQueue::signal() {
  const bool out = out_ring_.notify_wanted(), in = in_ring_.notify_wanted();
  if (out || (in && in_channel_ == nullptr)) {
    counters_[kNotifications].add();
    out_channel_->notify();
  }
  if (!in || in_channel_ == nullptr) return;
  counters_[kNotifications].add();
  in_channel_->notify();
}

}  // namespace bulkhead::device::xenbus
