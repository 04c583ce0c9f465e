#include "device/core/net/net_core.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "base/log.h"
#include "net/offload/checksum.h"

namespace bulkhead::device {

using net::FrameHeader, net::Offloads, net::Received, net::Sent;

namespace {

constexpr unsigned kTurn = 64;  // frames each way until the other way, and the driver, get their turn

void record_depth(NetCore::Direction& direction, u64 depth) {
  if (depth == 0) return;
  direction.depth.store(depth, std::memory_order_relaxed);
  if (depth > direction.deepest.load(std::memory_order_relaxed))
    direction.deepest.store(depth, std::memory_order_relaxed);
}

}  // namespace

Nanoseconds NetCore::Buckets::wait(Nanoseconds now) {
  const std::lock_guard lock{mutex};
  return std::max(bytes.wait(now), packets.wait(now));
}

void NetCore::Buckets::take(u64 size) {
  const std::lock_guard lock{mutex};
  bytes.take(size);
  packets.take(1);
}

bool NetCore::may_pass(Pair& pair, Buckets& buckets, Direction& direction) {
  if (!buckets.active) return true;
  const Nanoseconds now = clock_.now(), time = buckets.wait(now);
  if (time == 0) return true;
  direction.counters[kThrottled].add();
  pair.wake_at = std::min(pair.wake_at, now + time);
  return false;
}

// ---- from the guest

// Whatever is wrong here is the guest's doing and costs it the frame. A hint that cannot be is made one that can.
bool NetCore::judge(OutgoingFrame& frame) const {
  FrameHeader& header = frame.header;
  header.flags &= net::kNeedsChecksum;
  const Offloads gso = net::offload_of(header.gso);
  const bool sum = header.flags != 0;
  if (!net::plausible(header, frame.bytes)) return false;
  if ((gso & ~out_allowed_) != 0 || (sum && !(out_allowed_ & net::kChecksum))) return false;
  if (!sum) header.checksum_start = header.checksum_offset = 0;
  if (gso == 0) header.segment_bytes = 0;
  header.header_bytes = static_cast<u16>(std::min<u64>(header.header_bytes, frame.bytes));
  return true;
}

bool NetCore::take_out(Pair& pair) {
  while (true) {
    switch (rings_->next_out(pair.index, pair.frame)) {
      case NetRings::Next::kNone:
        if (rings_->sleep_out(pair.index)) return false;
        continue;
      case NetRings::Next::kBad:
        pair.out.counters[kBad].add();
        return true;  // one of the turn's frames
      case NetRings::Next::kFrame:
        break;
    }
    pair.out_held = true;
    const Nanoseconds kicked = pair.out_kick.exchange(0, std::memory_order_relaxed);
    pair.out_since = kicked != 0 ? kicked : clock_.now();
    pair.prepared = false;
    pair.out_next = {};
    if (!judge(pair.frame)) finish_out(pair, kBad);
    return true;
  }
}

// Does what the end cannot do, on a copy. False: the frame is not what its header says.
bool NetCore::prepare_out(Pair& pair) {
  pair.prepared = true;
  pair.out_next = {};
  OutgoingFrame& frame = pair.frame;
  const bool cut = (net::offload_of(frame.header.gso) & ~end_.takes()) != 0;
  const bool sum = (frame.header.flags & net::kNeedsChecksum) && !(end_.takes() & net::kChecksum);
  if (!cut && !sum) return true;
  pair.scratch.resize(frame.bytes);
  std::size_t done = 0;
  for (const net::IoBuffer& piece : frame.pieces) {
    std::memcpy(&pair.scratch[done], piece.data, piece.length);
    done += piece.length;
  }
  if (!cut) {
    pair.out_next = pair.scratch;
    return net::complete_checksum(frame.header, pair.scratch);
  }
  if (!pair.out_segments.begin(frame.header, pair.scratch)) return false;
  frame.header = {};
  pair.out_next = pair.out_segments.next();
  pair.out.counters[kSegmented].add();
  return true;
}

Sent NetCore::send_held(Pair& pair) {
  if (!link_up()) return Sent::kRefused;
  if (pair.out_next.empty()) return pair.queue->send(pair.frame.header, pair.frame.pieces);
  while (true) {
    const net::IoBuffer piece{pair.out_next.data(), pair.out_next.size()};
    const Sent sent = pair.queue->send(pair.frame.header, {&piece, 1});
    if (sent != Sent::kDone || !pair.out_segments.any()) return sent;
    pair.out_next = pair.out_segments.next();
  }
}

void NetCore::finish_out(Pair& pair, CounterIndex how) {
  pair.out_held = false;
  pair.out_segments = {};
  rings_->out_done(pair.index);
  pair.out.counters[how].add();
  if (how != kPackets) return;
  pair.out.counters[kBytes].add(pair.frame.bytes);
  pair.out.latency.record(clock_.now() - pair.out_since);
}

bool NetCore::send_some(Pair& pair) {
  pair.wait_writable = false;
  if (pair.queue->unflushed()) pair.queue->flush();
  unsigned frames = 0;
  for (bool more = true; more && frames < kTurn; ++frames) {
    if (!pair.out_held) more = take_out(pair);
    if (!pair.out_held) continue;
    if (!pair.prepared && !prepare_out(pair)) {
      finish_out(pair, kBad);
      continue;
    }
    if (!may_pass(pair, out_buckets_, pair.out)) break;
    const Sent sent = send_held(pair);
    if (sent == Sent::kFull) {
      pair.wait_writable = true;
      break;
    }
    if (sent == Sent::kGone) lose_link();
    if (sent == Sent::kDone) out_buckets_.take(pair.frame.bytes);
    finish_out(pair, sent == Sent::kDone ? kPackets : kDropped);
  }
  record_depth(pair.out, frames);
  return frames == kTurn;
}

// ---- to the guest

bool NetCore::take_in(Pair& pair) {
  if (!link_up()) return false;
  std::span<std::byte> frame;
  switch (pair.queue->receive(pair.in_header, frame)) {
    case Received::kGone:
      lose_link();
      return false;
    case Received::kNothing:
      return false;
    case Received::kFrame:
      break;
  }
  pair.in_next = frame;
  pair.in_since = clock_.now();
  pair.in_held = true;
  if (frame.size() < net::kEthernetBytes || !prepare_in(pair)) finish_in(pair, kBad);
  return true;
}

// What the guest has not said that it takes.
bool NetCore::prepare_in(Pair& pair) {
  FrameHeader& header = pair.in_header;
  const bool finish = tagged_ == Tagged::kFinished && net::has_vlan_tag(pair.in_next);
  const Offloads accepted = finish ? 0 : in_accepted_;
  if ((net::offload_of(header.gso) & ~accepted) != 0) {
    if (!pair.in_segments.begin(header, pair.in_next)) return false;
    header = {};
    if (accepted & net::kChecksum) header.flags = net::kDataValid;
    pair.in_next = pair.in_segments.next();
    pair.in.counters[kSegmented].add();
    return true;
  }
  if (accepted & net::kChecksum) return true;
  const bool good = net::complete_checksum(header, pair.in_next);
  header.flags = 0;
  return good;
}

NetRings::Put NetCore::put_held(Pair& pair) {
  while (true) {
    const NetRings::Put put = rings_->put_in(pair.index, pair.in_header, pair.in_next);
    if (put == NetRings::Put::kNoRoom || !pair.in_segments.any()) return put;
    pair.in_next = pair.in_segments.next();
  }
}

void NetCore::finish_in(Pair& pair, CounterIndex how) {
  pair.in_held = false;
  pair.in_segments = {};
  pair.in.counters[how].add();
  if (how != kPackets) return;
  pair.in.latency.record(clock_.now() - pair.in_since);
}

bool NetCore::receive_some(Pair& pair) {
  pair.wait_room = false;
  unsigned frames = 0;
  while (frames < kTurn) {
    if (!pair.in_held && !take_in(pair)) break;
    if (!pair.in_held) {
      ++frames;
      continue;
    }
    if (!may_pass(pair, in_buckets_, pair.in)) break;
    const u64 bytes = pair.in_next.size();
    const NetRings::Put put = put_held(pair);
    if (put == NetRings::Put::kNoRoom) {
      if (!rings_->sleep_in(pair.index)) continue;
      pair.wait_room = true;
      break;
    }
    ++frames;
    const bool good = put == NetRings::Put::kDone;
    if (good) in_buckets_.take(bytes);
    if (good) pair.in.counters[kBytes].add(bytes);
    finish_in(pair, good ? kPackets : put == NetRings::Put::kTooLarge ? kTooLarge : kDropped);
  }
  record_depth(pair.in, frames);
  return frames == kTurn;
}

void NetCore::lose_link() {
  if (!link_up_.exchange(false)) return;
  log_warning("{} is gone: the zone goes on without it", end_.description());
  if (link_changed_) link_changed_();
}

bool NetCore::turn(Pair& pair) {
  if (rings_ == nullptr || pair.index >= active_) return false;
  pair.wake_at = ~Nanoseconds{0};
  pair.in_kick.store(false);
  const bool more_out = send_some(pair), more_in = receive_some(pair);
  rings_->signal(pair.index);
  return more_out || more_in;
}

}  // namespace bulkhead::device
