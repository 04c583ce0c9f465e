// What guests did wrong or lost, counted instead of logged.
#pragma once
#include "telemetry/counter.h"

namespace bulkhead::abi::xen {

enum Count : std::size_t {
  kUnknownHypercalls,    // numbers that nobody answers
  kUnknownOperations,    // sub-operations that nobody answers
  kBadPointers,          // arguments whose memory the caller cannot access
  kBadPorts,             // event channels that are not there
  kEventsSent,           // events made pending
  kEventsMerged,         // events that were pending already
  kFifoCorruptWords,     // event words that the guest kept changing under us
  kFifoMissingPages,     // events on array pages that the guest has not given
  kGrantsRefused,        // grants that could not be mapped or copied
  kGrantBadUnmaps,       // unmapping what is not mapped
  kConsoleBytesDropped,  // console output above the rate
  kRefusedMulticalls,    // nested or oversized
  kRefusedMemory,        // frames that cannot leave, come or be placed
  kTimersFired,
  kCancelledSuspends,  // the guest suspended itself and was told to go on
  kCountSize
};

struct DomainCounters : telemetry::CounterSet {
  DomainCounters()
      : CounterSet{{"unknown_hypercalls", "unknown_operations", "bad_pointers", "bad_ports", "events_sent",
                    "events_merged", "fifo_corrupt_words", "fifo_missing_pages", "grants_refused", "grant_bad_unmaps",
                    "console_bytes_dropped", "refused_multicalls", "refused_memory", "timers_fired",
                    "cancelled_suspends"}} {}
};

}  // namespace bulkhead::abi::xen
