// A zone's way to its file server: takes requests from a device, one at a time for each free lane, sends them, and
// gives the replies back. A lane is a socket to a thread of the server, with one request on it; so the server's threads
// are the bound of what is in flight, and what else the guest wants waits in the guest.
//
// The server is believed no more than the guest: a reply that is not one makes its lane end, and what was in flight
// there fails with EIO. Without lanes every request fails with ENOTCONN.
#pragma once
#include <linux/fuse.h>

#include <array>
#include <atomic>
#include <functional>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/sync.h"
#include "block/buffers.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

using block::IoBuffer;

// One request on its way. Its source keeps what it belongs to by `lane`.
struct FsRequest {
  unsigned lane = 0;
  fuse_in_header header{};     // copied once, and judged; sent from here
  std::vector<IoBuffer> rest;  // what is behind the header: header.len - sizeof header bytes
  bool wants_reply() const {
    return header.opcode != FUSE_FORGET && header.opcode != FUSE_BATCH_FORGET && header.opcode != FUSE_INTERRUPT;
  }
};

// The device's side. All calls on the core's thread, under its lock.
class FsSource {
 public:
  virtual ~FsSource() = default;
  // The next request for the lane `request.lane`; false: there is none now.
  virtual bool next(FsRequest& request) = 0;
  // Memory for a reply of that many bytes, which stays until done(); empty where it does not fit.
  virtual std::span<const IoBuffer> reply_space(unsigned lane, u32 bytes) = 0;
  // The request is over; `bytes` of the reply were written, or none.
  virtual void done(unsigned lane, u32 bytes) = 0;
  // After some done().
  virtual void signal() = 0;
};

class FsCore {
 public:
  static constexpr unsigned kMaxLanes = 16, kOpcodes = 64;
  static constexpr u32 kMaxMessage = 1_MiB + 4096;

  // `lanes`: connected stream sockets, not blocking.
  explicit FsCore(std::vector<UniqueFd> lanes);
  ~FsCore();
  FsCore(const FsCore&) = delete;

  // Any thread. The source outlives us, or is taken away by nullptr: it hears of nothing any more then, and its memory
  // is not touched.
  void set_source(FsSource* source);
  // Any thread, never blocks: there may be a request.
  void kick();
  // Runs `change` while the thread does nothing; what is in flight stays in flight. Not from a source's calls.
  void paused(const std::function<void()>& change);
  // Within paused(): the lane's request is given up by its source, which hears no more of it.
  void give_up(unsigned lane);
  unsigned lane_count() const { return static_cast<unsigned>(lanes_.size()); }

  // ---- Any thread.
  enum CounterIndex : u8 { kRequests, kReplies, kErrors, kBytesOut, kBytesIn, kMalformed, kServerLost };
  const telemetry::CounterSet& counters() const { return counters_; }
  telemetry::CounterSet& counters() { return counters_; }
  u64 requests(unsigned opcode) const { return by_opcode_[opcode].load(std::memory_order_relaxed); }
  const telemetry::Histogram& latency(unsigned opcode) const { return latency_[opcode]; }
  u64 depth() const { return depth_.load(std::memory_order_relaxed); }  // in flight now
  u64 deepest() const { return deepest_.load(std::memory_order_relaxed); }

 private:
  enum class Phase : u8 { kIdle, kSending, kReceiving, kDead };
  struct Lane {
    UniqueFd socket;
    Phase phase = Phase::kIdle;
    bool given_up = false;
    FsRequest request;
    std::vector<IoBuffer> moving;  // what is still to be sent, or received
    std::size_t moving_first = 0;
    Nanoseconds begin = 0;
    u32 reply_length = 0;  // 0: not known yet
    std::size_t head_got = 0;
    std::array<std::byte, 4096> head;
    bool too_long = false;  // the guest has no room for it: it is read and thrown away
  };

  void run();
  bool service();
  bool refuse_some();
  bool start(Lane& lane);
  bool send(Lane& lane);
  bool receive(Lane& lane);
  bool begin_reply(Lane& lane);
  bool receive_rest(Lane& lane);
  void finish(Lane& lane, u32 bytes);
  void answer_error(Lane& lane, int error);
  void lost(Lane& lane);
  static void advance(Lane& lane, std::size_t bytes);

  std::vector<Lane> lanes_;
  UniqueFd events_;
  HostClock clock_;
  telemetry::CounterSet counters_{
      {"requests", "replies", "errors", "bytes_from_zone", "bytes_to_zone", "malformed_at_device", "server_lost"}};
  std::array<std::atomic<u64>, kOpcodes> by_opcode_{};
  std::array<telemetry::Histogram, kOpcodes> latency_;
  std::atomic<u64> depth_{0}, deepest_{0};
  std::atomic<bool> exit_{false};
  Mutex mutex_;
  FsSource* source_ BH_GUARDED_BY(mutex_) = nullptr;
  bool signal_ = false;
  std::vector<std::byte> scratch_;
  std::thread thread_;
};

// A request's name in reports ("lookup"); "other" for those we do not know.
std::string_view fs_opcode_name(unsigned opcode);

}  // namespace bulkhead::device
