// One ring of a Xen disk with its event channel.
// notify() apart, one thread at a time: the disk's.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "device/xenbus/blk/blk_request.h"
#include "device/xenbus/ring/back_ring.h"
#include "device/xenbus/ring/granted_page.h"

namespace bulkhead::device::xenbus {

class BlkQueue {
 public:
  // `pages` are mapped for writing.
  BlkQueue(BlkAbi abi, std::vector<GrantedPage> pages, BlkRequests requests, BlkCounters& counters);

  void set_channel(std::unique_ptr<EventChannel> channel) { channel_ = std::move(channel); }

  enum class Served : u8 {
    kAll,      // asleep until the next event
    kSome,     // there may be more
    kOverrun,  // just found to be broken; kAll from then on
  };
  // At most one ring's length of requests; stops early when `stop` says so.
  Served serve(const std::function<bool()>& stop);

 private:
  void notify();
  Served finish();

  const BlkAbi abi_;
  std::vector<GrantedPage> pages_;
  BackRing ring_;
  BlkRequests requests_;
  BlkCounters& counters_;
  std::unique_ptr<EventChannel> channel_;  // goes first
  bool broken_ = false;
};

}  // namespace bulkhead::device::xenbus
