// An engine around another one, which moves a running guest: every so often it stops all vCPUs between two exits, reads
// their whole state, makes a fresh partition of the same engine over the same memory, writes the state there and goes
// on. Whoever uses it notices nothing, or the engine's state was not whole.
#pragma once
#include <chrono>
#include <memory>

#include "engine/engine.h"

namespace bulkhead::engine {

class RoundTripEngine final : public Engine {
 public:
  // `real` outlives us.
  RoundTripEngine(Engine& real, std::chrono::microseconds period) : real_{real}, period_{period} {}
  Probe probe() const override { return real_.probe(); }
  Result<std::unique_ptr<Partition>> create(const PartitionConfig& config, GuestMemory& memory) override;
  // How often the last partition has moved. Any thread.
  u64 moves() const { return moves_.load(); }

 private:
  friend class RoundTripPartition;
  Engine& real_;
  const std::chrono::microseconds period_;
  std::atomic<u64> moves_{0};
};

}  // namespace bulkhead::engine
