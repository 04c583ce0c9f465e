// The backend's end of a shared request/response ring [xen/io/ring.h], on one or more pages that need not be
// neighbours. Never trusts the shared indexes further than one ring's size; what it has judged it does not read again.
// One thread at a time. Requests are answered in any order; no more are taken than the ring holds unanswered.
#pragma once
#include <span>
#include <vector>

#include "base/ints.h"

namespace bulkhead::device::xenbus {

class BackRing {
 public:
  static constexpr u32 kHeaderBytes = 64;

  // `entry_bytes`: of the larger of request and response. Goes on where the shared page says that responses end, so
  // that a frontend that kept its ring finds us where we left.
  BackRing(std::vector<std::byte*> pages, u32 entry_bytes);

  u32 size() const { return size_; }  // entries, a power of two
  // The producer is further ahead than the ring is long: the frontend is broken, and take() takes nothing for ever.
  bool overrun() const { return overrun_; }
  // Copies the next request into `out` (entry_bytes). False: none now.
  bool take(std::span<std::byte> out);
  // Answers one of the requests taken: at once visible to the frontend.
  void respond(std::span<const std::byte> response);
  // True if the frontend wants an event for responses since the last call.
  bool notify_wanted();
  // Asks for an event with the next request. False: there is one already, do not sleep.
  bool sleep();

 private:
  u32 shared_index(u32 offset) const;
  void set_shared_index(u32 offset, u32 value);
  bool pending();
  template <class Copy>
  void pieces(u32 index, std::size_t length, Copy copy) const;

  std::vector<std::byte*> pages_;
  const u32 entry_bytes_;
  u32 size_;
  u32 taken_;     // requests taken, and
  u32 answered_;  // responses given: as many behind as are in flight, at most the ring's size
  u32 notified_;  // responses that notify_wanted() has judged
  bool overrun_ = false;
};

}  // namespace bulkhead::device::xenbus
