// The machine `pv`: a Xen PV domain on an engine that can run guests without privilege. No firmware, no legacy devices:
// console, xenstore and split devices over grants and event channels.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "machine/machine.h"

namespace bulkhead::device {
class ConsoleBackend;
}

namespace bulkhead::machine {

struct PvConfig : MachineConfig {
  // Owned elsewhere, outlive the machine.
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
