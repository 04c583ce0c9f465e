// The machine `pv`: a Xen PV domain on an engine that can run guests without privilege. No firmware, no legacy devices:
// console, xenstore and split devices over grants and event channels.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "machine/machine.h"

namespace bulkhead::block {
class Disk;
}
namespace bulkhead::device {
class ConsoleBackend;
}

namespace bulkhead::machine {

struct PvConfig {
  std::string name = "zone";
  unsigned vcpus = 1;
  u64 memory_bytes = 512u << 20;
  std::string kernel_path;
  std::string initrd_path;  // empty: none
  std::string command_line;
  std::string cpu_model = "host";
  std::vector<std::pair<std::string, std::string>> engine_options;
  // Owned elsewhere, outlive the machine.
  std::vector<block::Disk*> disks;              // xvda, xvdb, ...; null leaves a name free
  device::ConsoleBackend* console = nullptr;    // hvc0; null: output is dropped
  std::vector<device::ConsoleBackend*> others;  // hvc1, ...
  // Byte channels for programs in the guest, by their directory below the zone's own in xenstore.
  struct Channel {
    std::string directory;  // "data/..."
    device::ConsoleBackend* backend = nullptr;
  };
  std::vector<Channel> channels;
  // What the guest tells the hypervisor (CONSOLEIO_write; earlyprintk=xen); null: dropped.
  device::ConsoleBackend* hypervisor_console = nullptr;
};

class Pv : public Machine {
 public:
  static constexpr unsigned kMaxVcpus = 8;
  static constexpr u64 kMinMemory = 16u << 20, kMaxMemory = u64{512} << 30;
  // Loads everything; nothing runs yet. Errors name the file and what is wrong with it.
  static Result<std::unique_ptr<Pv>> create(engine::Engine& engine, PvConfig config);
};

}  // namespace bulkhead::machine
