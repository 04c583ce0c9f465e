// One ring of a Xen disk with its event channel.
// The disk's thread.
#pragma once
#include <memory>
#include <vector>

#include "block/async/wait.h"
#include "device/core/block/block_service.h"
#include "device/xenbus/blk/blk_request.h"
#include "device/xenbus/ring/back_ring.h"
#include "device/xenbus/ring/granted_page.h"

namespace bulkhead::device::xenbus {

class BlkQueue {
 public:
  struct Owner {
    BlockCore& core;
    GrantPort& grants;
    BlkCounters& counters;
    BlockService& service;
  };
  // `pages` are mapped for writing. `index`: our number in the service. `persistent`: pages to keep mapped.
  BlkQueue(Owner owner, unsigned index, BlkAbi abi, std::vector<GrantedPage> pages, std::size_t persistent);

  void set_channel(std::unique_ptr<EventChannel> channel) { channel_ = std::move(channel); }

  enum class Served : u8 {
    kAll,      // asleep until the next event, or until a barrier is over
    kSome,     // there may be more
    kOverrun,  // just found to be broken; kAll from then on
  };
  // Begins at most one ring's length of requests.
  Served serve();
  // Sends the frontend its event, if it wants one.
  void signal();

 private:
  static block::Detached run(BlkQueue* self, BlkRequest request);
  Served fall_asleep();

  const Owner owner_;
  const unsigned index_;
  const BlkAbi abi_;
  std::vector<GrantedPage> pages_;
  BackRing ring_;
  BlkPages data_pages_;
  std::vector<std::unique_ptr<BlkJob>> spare_;
  block::WaitList earlier_;  // a barrier, for the requests before it
  u32 in_flight_ = 0;
  bool barrier_ = false;  // nothing is taken from the ring until it is over
  bool broken_ = false;
  std::unique_ptr<EventChannel> channel_;  // goes first
};

}  // namespace bulkhead::device::xenbus
