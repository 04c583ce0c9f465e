// The FIFO event channel ABI: event words in pages of the guest, linked into queues by priority [xen/event_channel.h].
// The guest shares every word with us and may write anything: ports that we follow are only our own.
#pragma once
#include <xen/event_channel.h>

#include <array>
#include <vector>

#include "abi/xen/counters.h"
#include "abi/xen/domain.h"

namespace bulkhead::abi::xen {

// Where a port was queued last.
struct FifoPlace {
  u8 vcpu = 0;
  u8 priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
};

// Under the lock of Events.
class Fifo {
 public:
  explicit Fifo(DomainCounters& counters) : counters_{counters} {}

  bool has_control_block(unsigned vcpu) const { return queues_[vcpu].control != nullptr; }
  void set_control_block(unsigned vcpu, evtchn_fifo_control_block_t* block);
  bool full() const { return ports() >= EVTCHN_FIFO_NR_CHANNELS; }
  void add_page(event_word_t* words) { pages_.push_back(words); }  // the next page of event words, if not full()
  u32 ports() const { return static_cast<u32>(pages_.size()) * kWordsPerPage; }

  enum class Outcome : u8 {
    kNoWord,   // the guest has given no page for the port yet
    kMerged,   // was pending already
    kPending,  // became pending
  };
  struct Raised {
    Outcome outcome;
    bool ready;  // the queue's ready bit was set anew: the vCPU is due an upcall
  };
  // Makes `port` pending and links it into the queue of (vcpu, priority), unless it is masked or linked.
  Raised raise(u32 port, unsigned vcpu, u8 priority, FifoPlace& last);
  // Clears the mask; when the port was pending it is raised again.
  bool unmask(u32 port);  // true: it is pending
  void clear_pending(u32 port);
  bool pending(u32 port) const;
  bool masked(u32 port) const;

  static constexpr u32 kWordsPerPage = kPageSize / sizeof(event_word_t);

 private:
  struct Queues {
    evtchn_fifo_control_block_t* control = nullptr;
    std::array<u32, EVTCHN_FIFO_MAX_QUEUES> tail{};
  };
  event_word_t* word(u32 port) const;
  bool link_behind(u32 tail, u32 port);

  DomainCounters& counters_;
  std::array<Queues, kMaxVcpus> queues_;
  std::vector<event_word_t*> pages_;
};

}  // namespace bulkhead::abi::xen
