// One pair of rings of a Xen network interface, with their event channels. The pair's thread.
#pragma once
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "device/core/net/net_core.h"
#include "device/xenbus/ring/back_ring.h"
#include "device/xenbus/ring/granted_page.h"

namespace bulkhead::device::xenbus {

class NetQueue {
 public:
  static constexpr unsigned kMaxSlots = 18;  // of one frame from the guest, extra information not counted
  enum CounterIndex : u8 { kBadRequests, kBadGrants, kNotifications };
  static std::vector<std::string_view> counter_names() { return {"bad_requests", "bad_grants", "notifications"}; }

  // `out` and `in`: mapped for writing. `scatter`: the frontend takes frames in more pieces than one.
  NetQueue(GrantPort& grants, telemetry::CounterSet& counters, GrantedPage out, GrantedPage in, bool scatter);
  // `in` may be null: then `out` is for both.
  void set_channels(std::unique_ptr<EventChannel> out, std::unique_ptr<EventChannel> in) {
    out_channel_ = std::move(out);
    in_channel_ = std::move(in);
  }

  NetRings::Next next_out(OutgoingFrame& frame);
  void out_done() { answer(true); }
  NetRings::Put put_in(const net::FrameHeader& header, std::span<const std::byte> frame);
  bool sleep_out() { return out_ring_.sleep(); }
  bool sleep_in() { return in_ring_.sleep(); }
  void signal();

 private:
  struct Slot {
    u32 reference;
    u16 offset, flags, id, size;
  };
  struct Room {
    u32 reference;
    u16 id;
  };
  bool take(Slot& slot);
  bool take_extras(OutgoingFrame& frame, bool more);
  bool take_rest(u16 flags);
  bool map(OutgoingFrame& frame);
  bool find_checksum(OutgoingFrame& frame) const;
  void answer(bool good);
  void respond_in(const Room& room, u16 flags, i16 status);

  GrantPort& grants_;
  telemetry::CounterSet& counters_;
  GrantedPage out_page_, in_page_;
  BackRing out_ring_, in_ring_;
  const bool scatter_;
  // The frame that is on its way out.
  std::vector<Slot> slots_;
  std::vector<std::optional<u16>> answers_;  // to the requests that were taken, in order; none: to extra information
  std::vector<GrantedPage> pages_;
  // Requests for frames to come.
  std::deque<Room> room_;
  std::vector<GrantedPage> room_pages_;
  std::unique_ptr<EventChannel> out_channel_, in_channel_;  // go first
};

}  // namespace bulkhead::device::xenbus
