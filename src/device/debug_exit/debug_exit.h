// debug-exit: a port by which a test kernel ends its zone with a status (0xf4 by custom, 4 ports).
// Source: the custom of kernel test suites; status is (value << 1) | 1, so it is never 0. Fidelity: complete.
// Runs on the vCPU that touched the port, under the bus lock.
#pragma once
#include <functional>
#include <utility>

#include "bus/io.h"

namespace bulkhead::device {

class DebugExit final : public IoDevice {
 public:
  static constexpr u16 kPort = 0xf4;
  static constexpr unsigned kPorts = 4;

  // `exit` gets 1..255, odd. It must not block: it asks the machine to stop and returns. A guest may write again before
  // it is stopped; what the first write said is what counts, so `exit` is called once until reset().
  explicit DebugExit(std::function<void(u8 status)> exit) : exit_{std::move(exit)} {}

  IoReply read(u64 offset, AccessSize) override { return offset < kPorts ? IoReply::data(0) : IoReply::ignored(); }
  IoReply write(u64 offset, u64 value, AccessSize size) override;
  void reset() { called_ = false; }  // while no vCPU runs

 private:
  const std::function<void(u8)> exit_;
  bool called_ = false;
};

}  // namespace bulkhead::device
