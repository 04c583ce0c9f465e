// A packet end in memory, for tests: what is sent is kept, what is to be received is put in. Any thread.
#pragma once
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.h"
#include "net/end.h"

namespace bulkhead::net::testing {

struct Frame {
  FrameHeader header;
  std::string bytes;
};

class MemoryQueue final : public EndQueue {
 public:
  int descriptor() const override { return event_.get(); }
  Sent send(const FrameHeader& header, std::span<const IoBuffer> frame) override {
    const std::lock_guard lock{mutex_};
    if (gone_) return Sent::kGone;
    if (full_) return Sent::kFull;
    Frame& one = sent_.emplace_back(header, "");
    for (const IoBuffer& piece : frame) one.bytes.append(reinterpret_cast<const char*>(piece.data), piece.length);
    changed_.notify_all();
    return Sent::kDone;
  }
  Received receive(FrameHeader& header, std::span<std::byte>& frame) override {
    const std::lock_guard lock{mutex_};
    if (gone_) return Received::kGone;
    if (coming_.empty()) {
      u64 times;
      (void)!::read(event_.get(), &times, sizeof times);
      return Received::kNothing;
    }
    current_ = std::move(coming_.front());
    coming_.pop_front();
    ++received_;
    changed_.notify_all();
    header = current_.header;
    frame = std::as_writable_bytes(std::span{current_.bytes});
    return Received::kFrame;
  }

  // ---- the test's
  void put(std::string bytes, FrameHeader header = {}) {
    const std::lock_guard lock{mutex_};
    coming_.push_back({header, std::move(bytes)});
    signal();
  }
  // The next frame that was sent; one of no bytes if none came for a very long time.
  Frame next() {
    std::unique_lock lock{mutex_};
    if (!changed_.wait_for(lock, std::chrono::seconds{30}, [&] { return !sent_.empty(); })) return {};
    Frame one = std::move(sent_.front());
    sent_.pop_front();
    return one;
  }
  std::size_t sent() {
    const std::lock_guard lock{mutex_};
    return sent_.size();
  }
  std::size_t waiting() {
    const std::lock_guard lock{mutex_};
    return coming_.size();
  }
  void set_full(bool full) {
    const std::lock_guard lock{mutex_};
    full_ = full;
    signal();
  }
  void die() {
    const std::lock_guard lock{mutex_};
    gone_ = true;
    signal();
  }

 private:
  void signal() {
    const u64 one = 1;
    (void)!::write(event_.get(), &one, sizeof one);
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Frame> sent_, coming_;
  Frame current_;
  u64 received_ = 0;
  bool full_ = false, gone_ = false;
  UniqueFd event_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

class MemoryEnd final : public End {
 public:
  explicit MemoryEnd(unsigned count = 1, Offloads takes_these = kAllOffloads) : takes_{takes_these}, queues(count) {}
  std::string description() const override { return "the test's packet end"; }
  unsigned queue_count() const override { return static_cast<unsigned>(queues.size()); }
  EndQueue& queue(unsigned index) override { return queues[index]; }
  Offloads takes() const override { return takes_; }
  void set_accepted(Offloads offloads) override { accepted = offloads; }
  void set_active(unsigned count) override { active = count; }

 private:
  const Offloads takes_;

 public:
  std::deque<MemoryQueue> queues;
  std::atomic<Offloads> accepted{0};
  std::atomic<unsigned> active{0};
};

}  // namespace bulkhead::net::testing
