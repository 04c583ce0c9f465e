// What every machine is to those who run a zone: it runs, it ends, it counts.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ints.h"
#include "base/result.h"
#include "device/core/block/block_statistics.h"
#include "device/core/net/net_settings.h"
#include "device/core/net/net_statistics.h"

namespace bulkhead::block {
class Disk;
}
namespace bulkhead::net {
class End;
class Vhost;
}  // namespace bulkhead::net

namespace bulkhead::machine {

// A network device: where its frames go, and what it is like.
struct NetDevice {
  net::End* end = nullptr;  // owned elsewhere, outlives the machine
  device::NetSettings settings;
  net::Vhost* vhost = nullptr;      // not null: the kernel's, for machines that can use it; as `end`
  bool vhost_is_asked_for = false;  // else it is left where it cannot be used
};

// What every machine is made from.
struct MachineConfig {
  std::string name = "zone";
  unsigned vcpus = 1;
  u64 memory_bytes = 512u << 20;
  std::string kernel_path;
  std::string initrd_path;  // empty: none
  std::string command_line;
  std::string cpu_model = "host";
  std::vector<std::pair<std::string, std::string>> engine_options;
  // Owned elsewhere, outlive the machine. In order: vda or xvda, ...; the machine pv leaves a name free for a null.
  std::vector<block::Disk*> disks;
  std::vector<NetDevice> networks;  // eth0, eth1, ...
};

// What the guest is told of a hypervisor, by CPUID, MSR and hypercall. kNone: nothing, as on a PC.
enum class Abi : u8 { kXen, kNone, kKvm };

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

// A disk by its name in the zone, and what its device has done.
struct DiskStatistics {
  std::string name;
  device::BlockStatistics done;
};

// A network device by its place ("net0"), and what it has done.
struct NetworkStatistics {
  std::string name;
  device::NetStatistics done;
};

// A disk that came to a running machine: its name in the zone ("xvdb"), and its place among the machine's disks.
struct PluggedDisk {
  std::string name;
  unsigned index = 0;
};

enum class DiskRemoval : u8 {
  kAsk,    // the guest may keep it; should it let go later, it is removed then
  kForce,  // when the guest has not let go in time, it is taken away
};
enum class DiskRemoved : u8 { kGone, kForced, kKept };

// What a guest's kernel can be asked to do.
enum class ShutdownRequest : u8 { kPowerOff, kReboot, kHalt, kSuspend };
enum class Asked : u8 { kAsked, kNobodyListens };  // kNobodyListens: not yet, or never

// A device as whoever inspects a zone sees it. `state`: of the connection with the guest's driver.
struct DeviceStatus {
  std::string kind, name, state;
  bool unplugging = false;
  std::string problem;  // why the guest's set-up was refused last, or empty
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
  virtual std::vector<DiskStatistics> disk_statistics() const { return {}; }
  virtual std::vector<NetworkStatistics> network_statistics() const { return {}; }
  virtual std::vector<std::pair<std::string, u64>> engine_counters() const = 0;  // summed over vCPUs
  virtual std::string kernel_description() const = 0;  // e.g. "bzImage 6.1.0-43-cloud-amd64 (lz4), PVH entry"

  // ---- While it runs; any thread but those of the machine's own callbacks.
  // `disk` outlives the machine, or its removal. Errors: the machine cannot, or has no place left.
  virtual Result<PluggedDisk> add_disk(block::Disk& /*disk*/) {
    return fail("the machine microvm cannot take a disk while it runs; start the zone with -V pv, or with --disk");
  }
  // By its name in the zone, whenever it came. `done` is called later on a thread of the machine's, at the latest when
  // the machine is destroyed. Errors: no such disk, or the machine cannot.
  virtual Result<void> remove_disk(std::string_view /*name*/, DiskRemoval /*how*/,
                                   std::function<void(DiskRemoved)> /*done*/) {
    return fail("the machine microvm cannot lose a disk while it runs; start the zone with -V pv");
  }
  // `gone` is told of each disk that was removed, on a thread of the machine's: nothing of the machine uses it then.
  virtual void set_disk_gone(std::function<void(block::Disk&)> /*gone*/) {}
  // Asks the guest's kernel; whether and when it follows is its own business. Errors: the machine has no way to ask.
  virtual Result<Asked> request_shutdown(ShutdownRequest /*what*/) {
    return fail("the machine microvm has no way to ask its guest to shut down");
  }
  virtual std::vector<DeviceStatus> devices() { return {}; }
};

}  // namespace bulkhead::machine
