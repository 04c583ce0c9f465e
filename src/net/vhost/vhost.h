// The kernel's vhost-net (linux/vhost.h): a thread of the kernel moves frames between a guest's virtio rings and a tap
// device. What a frame's header asks for is judged by the tap device. A ring that makes no sense is left alone by the
// kernel from then on.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace bulkhead::net {

class Vhost {
 public:
  static constexpr std::size_t kRings = 2;  // of a pair: to the guest, from the guest

  // For `pairs` queue pairs. Errors: the host has no vhost-net, or we may not use it.
  static Result<std::unique_ptr<Vhost>> open(unsigned pairs);
  ~Vhost();
  Vhost(const Vhost&) = delete;
  Vhost& operator=(const Vhost&) = delete;

  u64 features() const { return features_; }  // virtio's that it knows, of rings and of network devices

  // One thread at a time, all that follows.
  // Before the first ring: `features` are those that the driver wants and features() has. `taps`: the queues of the tap
  // device. The memory stays where it is until stop().
  Result<void> begin(u64 features, const GuestMemory& memory, std::span<const int> taps);
  struct Ring {
    u32 size = 0;
    Gpa descriptors{}, driver{}, device{};
    int notifications = -1, interrupts = -1;  // eventfds
  };
  // Goes on where the ring was stopped. Errors: the ring does not lie in memory, or the kernel does not want it.
  Result<void> start_ring(unsigned index, const Ring& ring, const GuestMemory& memory);
  void stop_ring(unsigned index);  // when it returns, the kernel does not touch the ring any more
  void stop();                     // all of them, and begins anew
  bool runs(unsigned index) const { return index < rings_.size() && rings_[index].runs; }

  // Calls once, on a thread of ours, when the tap device is removed; asked about once a second.
  void watch(int tap, std::function<void()> gone);
  void unwatch();  // nothing is called any more when it returns

 private:
  struct State {
    bool runs = false;
    u16 base = 0;  // the next entry of the ring
  };
  Vhost() = default;
  int device(unsigned index) const { return devices_[index / kRings].get(); }
  std::vector<UniqueFd> devices_;  // of each pair
  std::vector<State> rings_;
  std::vector<int> taps_;
  u64 features_ = 0;
  bool owned_ = false;
  UniqueFd end_;
  std::thread watcher_;
};

}  // namespace bulkhead::net
