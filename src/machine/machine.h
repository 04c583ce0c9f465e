// What every machine is to those who run a zone: it runs, it ends, it counts.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/ints.h"

namespace bulkhead::machine {

// What the guest is told of a hypervisor, by CPUID, MSR and hypercall. kNone: nothing, as on a PC.
enum class Abi : u8 { kXen, kNone };

// Why the machine stopped running.
struct Outcome {
  enum class Kind : u8 { kPowerOff, kReset, kDebugExit, kTripleFault, kHalted, kCrashed, kStopped, kEngineFailure };
  Kind kind = Kind::kStopped;
  u8 status = 0;       // kDebugExit: 2*v+1
  std::string reason;  // kTripleFault, kHalted, kCrashed, kEngineFailure: one line
};

// Exits by kind with latencies of their handling, for the report.
struct ExitStatistics {
  std::string kind;
  u64 count = 0, sum_ns = 0, p50_ns = 0, p99_ns = 0;
};

// Hypercalls by their name in the ABI.
struct HypercallStatistics {
  std::string name;
  u64 count = 0, sum_ns = 0, p50_ns = 0, p90_ns = 0, p99_ns = 0;
  u64 number = 0;
};

class Machine {
 public:
  virtual ~Machine() = default;
  // Runs the vCPU threads until the guest ends or stop() is called; blocks the caller. A reset ends run() with kReset:
  // to reboot, destroy and create again.
  virtual Outcome run() = 0;
  virtual void stop() = 0;  // any thread, also a signal-handling one (not a signal handler)
  virtual std::vector<ExitStatistics> exit_statistics() const = 0;
  virtual std::vector<HypercallStatistics> hypercall_statistics() const { return {}; }
  virtual std::vector<std::pair<std::string, u64>> engine_counters() const = 0;  // summed over vCPUs
  virtual std::string kernel_description() const = 0;  // e.g. "bzImage 6.1.0-43-cloud-amd64 (lz4), PVH entry"
};

}  // namespace bulkhead::machine
