// The network device without a transport: what it is, what it counts, and one thread for each queue pair that carries
// frames between the guest's rings and the packet end.
//
// A frame is judged before anything is done with it: a header that asks for more than the guest was offered, or that
// points outside of its frame, costs the guest that frame. What a taker cannot do (checksums, cutting up) is done here.
// Bounded: a pair holds one frame that the end cannot take and one that the guest has no room for, and nothing else.
// What comes meanwhile stays with the host, which drops it.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "block/throttle/token_bucket.h"
#include "device/core/net/net_settings.h"
#include "net/end.h"
#include "net/offload/segments.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

// A frame on its way out, as a transport has found it.
struct OutgoingFrame {
  net::FrameHeader header;
  std::vector<net::IoBuffer> pieces;  // guest memory: may change while we look
  u64 bytes = 0;                      // their sum
};

// The guest's half of a queue pair. Called on the pair's thread, or while all pairs are paused.
class NetRings {
 public:
  // The next frame of the guest's, which stays until out_done(). Frames that are none are answered and counted here.
  enum class Next : u8 { kFrame, kNone, kBad };
  virtual Next next_out(unsigned pair, OutgoingFrame& frame) = 0;
  virtual void out_done(unsigned pair) = 0;
  // Puts a frame into the guest's buffers.
  enum class Put : u8 { kDone, kNoRoom, kTooLarge, kUnwanted };
  virtual Put put_in(unsigned pair, const net::FrameHeader& header, std::span<const std::byte> frame) = 0;
  // Asks the driver to tell us of frames, or of room. False: there are some already.
  virtual bool sleep_out(unsigned pair) = 0;
  virtual bool sleep_in(unsigned pair) = 0;
  // Something was done in either ring: tell the driver if it wants to know.
  virtual void signal(unsigned pair) = 0;

 protected:
  ~NetRings() = default;
};

class NetCore {
 public:
  static constexpr unsigned kMaxPairs = 8;
  enum CounterIndex : u8 { kPackets, kBytes, kDropped, kBad, kThrottled, kSegmented, kTooLarge };

  // One direction of one pair. Written by the pair's thread, read by any.
  struct Direction {
    telemetry::CounterSet counters{
        {"packets", "bytes", "dropped", "bad_frames", "throttled", "segmented", "too_large"}};
    telemetry::Histogram latency;           // nanoseconds; see docs/telemetry.md
    std::atomic<u64> depth{0}, deepest{0};  // frames in one turn of the thread: the last, and the most
  };

  // `end` outlives us. The pairs' threads start with the first start().
  NetCore(net::End& end, const NetSettings& settings);
  ~NetCore();
  NetCore(const NetCore&) = delete;
  NetCore& operator=(const NetCore&) = delete;

  const net::MacAddress& mac() const { return settings_.mac; }
  u16 mtu() const { return settings_.mtu; }
  unsigned pair_count() const { return static_cast<unsigned>(pairs_.size()); }
  bool link_up() const { return link_up_.load(); }
  // What the guest may ask of us: everything; we do what the end cannot.
  static constexpr net::Offloads offered() { return net::kAllOffloads; }

  // ---- the transport's, any thread but the pairs'. kick_out() sends a few small frames on the caller's thread when
  // the pair's sleeps: waking it would take longer. So the caller must be able to take an interrupt. Begins with
  // `pairs` pairs. `out`: offloads that the guest may ask for; `in`: those that it takes.
  // kFinished: frames with a VLAN tag come without any.
  enum class Tagged : u8 { kAsOthers, kFinished };
  void start(NetRings& rings, unsigned pairs, net::Offloads out, net::Offloads in, Tagged tagged = Tagged::kAsOthers);
  void stop();       // returns when no ring is touched any more; held frames are forgotten
  void lose_link();  // the end is dead; once, with a line in the log
  net::End& end() { return end_; }
  // The kernel carries the frames, and nothing is counted here. Before the machine runs.
  void set_in_kernel() { in_kernel_ = true; }
  bool in_kernel() const { return in_kernel_; }
  void set_link_changed(std::function<void()> changed);  // told of a link that goes down, on a pair's thread
  void kick_out(unsigned pair);
  void kick_in(unsigned pair);
  // Runs `change` while no pair works.
  void paused(const std::function<void()>& change);
  // ---- within paused()
  void halt();  // what stop() does
  void set_pairs(unsigned pairs);
  void set_accepted(net::Offloads in);
  void set_end_serves(net::Offloads in, unsigned pairs);  // somebody else carries frames between the rings and the end
  void forget_out(unsigned pair);                         // the frame that next_out() gave is not there any more

  const Direction& out(unsigned pair) const { return pairs_[pair]->out; }
  const Direction& in(unsigned pair) const { return pairs_[pair]->in; }

 private:
  struct Buckets {
    explicit Buckets(const net::Limits& limits) : bytes{limits.bytes}, packets{limits.packets} {}
    std::mutex mutex;  // shared by all pairs
    block::TokenBucket bytes, packets;
    const bool active = bytes.limited() || packets.limited();
    Nanoseconds wait(Nanoseconds now);
    void take(u64 size);
  };
  struct Pair {
    unsigned index = 0;
    net::EndQueue* queue = nullptr;
    Direction out, in;
    UniqueFd wake;
    std::atomic<bool> asleep{false};
    std::atomic<Nanoseconds> out_kick{0};  // when the driver told us of frames that we have not looked at
    std::atomic<bool> in_kick{false};
    std::mutex mutex;  // held while it works
    std::thread thread;
    // The thread's.
    OutgoingFrame frame;
    bool out_held = false, in_held = false;
    bool wait_writable = false, wait_room = false;
    Nanoseconds out_since = 0, in_since = 0, wake_at = 0;
    // What goes next, where it is not the frame itself: a segment of it, or a copy with its checksum.
    net::FrameHeader in_header;
    std::span<std::byte> in_next, out_next;
    net::Segments out_segments, in_segments;
    std::vector<std::byte> scratch;
    bool prepared = false;  // out_next and out_segments are the held frame's
  };

  void run(Pair& pair);
  void wait(Pair& pair);
  bool turn(Pair& pair);
  // Each returns whether there may be more to do at once.
  bool send_some(Pair& pair);
  bool send_here(Pair& pair);
  bool receive_some(Pair& pair);
  bool take_out(Pair& pair);
  bool prepare_out(Pair& pair);
  net::Sent send_held(Pair& pair);
  void finish_out(Pair& pair, CounterIndex how);
  bool judge(OutgoingFrame& frame) const;
  bool take_in(Pair& pair);
  bool prepare_in(Pair& pair);
  NetRings::Put put_held(Pair& pair);
  void finish_in(Pair& pair, CounterIndex how);
  bool may_pass(Pair& pair, Buckets& buckets, Direction& direction);
  void forget_in(Pair& pair);
  void wake(Pair& pair);

  net::End& end_;
  const NetSettings settings_;
  HostClock clock_;
  Buckets out_buckets_, in_buckets_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::function<void()> link_changed_;
  std::atomic<bool> link_up_{true}, exit_{false};
  bool in_kernel_ = false;
  std::atomic<u32> pauses_{0};
  std::mutex pause_mutex_;
  // Changed while paused.
  NetRings* rings_ = nullptr;
  unsigned active_ = 0;
  net::Offloads out_allowed_ = 0, in_accepted_ = 0;
  Tagged tagged_ = Tagged::kAsOthers;
};

}  // namespace bulkhead::device
