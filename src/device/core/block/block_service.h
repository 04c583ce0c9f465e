// Joins a disk device's queues to its disk's thread: kicks from vCPUs become calls there, completions become one signal
// for many, and whoever changes the queues waits until nothing is in flight.
#pragma once
#include <functional>
#include <mutex>
#include <semaphore>

#include "device/core/block/block_core.h"

namespace bulkhead::device {

class BlockService final : private block::Posted {
 public:
  struct Hands {
    std::function<void(unsigned queue)> serve;   // take what is in the queue; no longer than one ring's length
    std::function<void(unsigned queue)> signal;  // requests were completed: tell the driver if it wants to know
  };
  // `core` outlives us. Both hands are called on the disk's thread.
  BlockService(BlockCore& core, Hands hands);
  ~BlockService() override;  // waits for what is in flight

  // --- any thread
  void kick(u64 queues);  // a set of queue numbers; their turn comes soon
  // Runs `change` here, on this thread, while nothing is in flight and no queue is served. Not on the disk's.
  void paused(const std::function<void()>& change);
  // Requests that wait for a limit or for an error's end fail now: a device is about to be reset.
  void abandon_waiting();

  // --- the disk's thread
  // A request from ring to ring. Ends with its coroutine.
  class Flight {
   public:
    Flight(BlockService& service, unsigned queue);
    ~Flight();
    Flight(const Flight&) = delete;
    Flight& operator=(const Flight&) = delete;

   private:
    BlockService& service_;
    const unsigned queue_;
    const Nanoseconds begin_;
  };
  void signal_soon(unsigned queue);

 private:
  struct TurnEnd final : block::Posted {
    explicit TurnEnd(BlockService& of) : service{of} {}
    void run_posted() override { service.end_turn(); }
    BlockService& service;
  };
  void run_posted() override;
  void end_turn();
  void want_turn_end();

  BlockCore& core_;
  block::Executor& executor_;
  const Hands hands_;
  std::atomic<u64> kicked_{0};
  std::atomic<bool> closed_{false};
  std::mutex pause_mutex_;  // one pause at a time
  // The disk's thread's.
  u64 in_flight_ = 0, to_signal_ = 0, put_off_ = 0;
  bool turn_end_wanted_ = false, pausing_ = false;
  std::binary_semaphore* quiet_ = nullptr;  // whom to tell, once, that nothing is in flight
  TurnEnd turn_end_{*this};
};

}  // namespace bulkhead::device
