// Dispatch of port or memory accesses to devices by address range. One Bus is one address space (ports, or MMIO).
// attach() before the vCPUs run; read()/write() from any vCPU thread.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "base/ints.h"
#include "base/result.h"
#include "base/sync.h"
#include "bus/io.h"

namespace bulkhead {

class Bus {
 public:
  // `device` must outlive the bus. Several ranges of one device share `lock`; pass the same one.
  // Errors: the range is empty, wraps, or overlaps one that is there.
  Result<void> attach(u64 start, u64 length, IoDevice& device, Mutex& lock);
  // The same with a lock of its own.
  Result<void> attach(u64 start, u64 length, IoDevice& device);

  // An access that no device claims, or that straddles a range's end, is ignored (reads give all ones) and counted.
  IoReply read(u64 address, AccessSize size);
  IoReply write(u64 address, u64 value, AccessSize size);

  u64 unclaimed() const;  // accesses that no device handled

 private:
  struct Range {
    u64 start;
    u64 length;
    IoDevice* device;
    Mutex* lock;
  };
  const Range* find(u64 address, unsigned size) const;

  std::vector<Range> ranges_;  // sorted by start
  std::vector<std::unique_ptr<Mutex>> own_locks_;
  std::atomic<u64> unclaimed_{0};
};

}  // namespace bulkhead
