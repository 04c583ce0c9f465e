// The machine `microvm`: RAM, LAPICs, IOAPIC, PIT, PIC, RTC, UART, virtio-mmio devices named in ACPI, and a kernel
// loaded straight into memory. It joins an engine's partition to the devices and runs the vCPU threads.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine.h"
#include "machine/machine.h"

namespace bulkhead::device {
class ConsoleBackend;
class EntropySource;
class FsCore;
}  // namespace bulkhead::device

namespace bulkhead::machine {

// How the kernel is entered. kAuto: PVH if the kernel has ELF note 18, else the Linux boot protocol, else Multiboot.
enum class BootProtocol : u8 { kAuto, kPvh, kLinux64, kMultiboot };

struct MicrovmConfig : MachineConfig {
  Abi abi = Abi::kXen;
  std::vector<std::string> modules;  // Multiboot modules: "PATH [ARGS]"
  BootProtocol protocol = BootProtocol::kAuto;

  // Owned elsewhere, outlive the machine. Disks come first in the virtio-mmio slots.
  // virtio-console: port 0 is hvc0; more ports make it multiport, each with its name.
  struct ConsolePort {
    std::string name;
    device::ConsoleBackend* backend = nullptr;
    bool is_console = false;  // hvcN in the guest rather than /dev/vportNpM
  };
  std::vector<ConsolePort> console_ports;  // empty: no virtio console
  device::ConsoleBackend* uart = nullptr;  // the 16550's far end; null: output is dropped
  bool rng = true;
  device::FsCore* files = nullptr;             // a virtio-fs device on it; null: none
  std::string files_tag;                       // what the guest mounts
  device::ConsoleBackend* debugcon = nullptr;  // port 0xe9; null: not there
  bool debug_exit = false;                     // port 0xf4
};

class Microvm : public Machine {
 public:
  // Loads everything; nothing runs yet. Errors name the file and what is wrong with it.
  static Result<std::unique_ptr<Microvm>> create(engine::Engine& engine, MicrovmConfig config);
};

}  // namespace bulkhead::machine
