// A disk as devices see it: a graph of nodes on a thread of its own, behind limits, a cache mode and an error policy.
// Knows no device. Requests run in parallel and end in any order; they are coroutines on the disk's executor.
#pragma once
#include <functional>

#include "block/node/node.h"
#include "block/throttle/throttle.h"

namespace bulkhead::block {

enum class CacheMode : u8 {
  kWriteBack,     // a guest's flush makes its writes safe
  kWriteThrough,  // every write is safe when it completes
  kUnsafe,        // flushes do nothing: for what is thrown away after a crash
};

enum class ErrorAction : u8 {
  kReport,       // the guest gets the error
  kIgnore,       // the guest is told that all is well
  kWait,         // the request and all that come after it wait, and it is tried again until it works
  kWaitNoSpace,  // the same where the host has no space; other errors are reported
};

struct DiskOptions {
  std::string serial{};
  CacheMode cache = CacheMode::kWriteBack;
  ErrorAction on_read_error = ErrorAction::kReport, on_write_error = ErrorAction::kReport;
  ThrottleLimits limits{};
};

class Disk {
 public:
  static constexpr Nanoseconds kRetryAfter = 1'000'000'000;

  // Of a graph that is on `executor`, which becomes ours. Errors: a size that is not whole sectors, or none.
  static Result<std::unique_ptr<Disk>> create(std::unique_ptr<Executor> executor, NodePtr root,
                                              DiskOptions options = {});
  // Waits for what is in flight, and writes back what formats have cached.
  ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  // --- any thread
  Executor& executor() const { return *executor_; }
  u64 size_bytes() const { return size_.load(std::memory_order_relaxed); }  // a multiple of kSectorSize
  bool read_only() const { return read_only_; }
  bool supports_discard() const { return supports_discard_; }
  const std::string& serial() const { return options_.serial; }
  CacheMode cache() const { return options_.cache; }
  u32 optimal_transfer() const { return optimal_transfer_; }    // bytes; a hint
  u32 request_alignment() const { return request_alignment_; }  // what does not cost a read beside the write
  void set_limits(const ThrottleLimits& limits);
  // Called on the disk's thread when requests begin to wait for an error's end (kOk: they go on). One at a time.
  void set_on_wait(std::function<void(IoStatus why)> on_wait);
  // What requests wait for the end of, and are held back by; kOk: nothing.
  IoStatus waits_for() const { return waits_for_.load(std::memory_order_relaxed); }
  void retry_now();  // tries again at once what waits for an error's end

  // --- requests; executor's thread. As of Node, and judged there.
  Task<IoStatus> read(u64 offset, Buffers data);
  Task<IoStatus> write(u64 offset, Buffers data, WriteFlags flags = WriteFlags::kNone);
  Task<IoStatus> flush();
  Task<IoStatus> discard(u64 offset, u64 length);
  Task<IoStatus> write_zeroes(u64 offset, u64 length, WriteFlags flags = WriteFlags::kNone);
  // Those that wait (for a limit, for an error's end, for resume()) end with kCancelled. A device is being reset.
  void cancel_waiting();

  // --- for whoever changes the graph; executor's thread
  // Holds new requests back, and returns when none is in flight below. Counted: resume() once for each.
  Task<void> pause();
  void resume();
  const NodePtr& root() const { return root_; }
  void set_root(NodePtr root);  // while paused; of the same size
  u64 in_flight() const { return in_flight_; }

 private:
  struct Request;
  Disk(std::unique_ptr<Executor> executor, NodePtr root, DiskOptions options);
  Task<IoStatus> perform(Request& request);
  Task<IoStatus> run(Request& request);
  Task<bool> may_go(const Request& request, u64 epoch);
  ErrorAction action_for(const Request& request, IoStatus status) const;
  Task<void> wait_for_better(IoStatus status);
  Task<void> retry_later();
  Task<void> shut_down();

  const std::unique_ptr<Executor> executor_;
  NodePtr root_;
  const DiskOptions options_;
  std::atomic<u64> size_;
  std::atomic<IoStatus> waits_for_{IoStatus::kOk};
  bool read_only_, supports_discard_;
  u32 optimal_transfer_, request_alignment_;
  // The executor's.
  Throttle throttle_;
  WaitList held_;   // while paused or waiting for an error's end
  WaitList quiet_;  // who wants nothing in flight
  u64 in_flight_ = 0, pauses_ = 0, epoch_ = 0, held_back_ = 0;
  bool waiting_ = false, closing_ = false;
  Nanoseconds retry_at_ = 0;
  std::function<void(IoStatus)> on_wait_;
};

}  // namespace bulkhead::block
