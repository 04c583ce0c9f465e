// The engine interface: run vCPUs until they need us. An engine knows memory regions, vCPU state, interrupts and
// exits; it knows no device. Everything above speaks only this.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"
#include "base/result.h"
#include "bus/io.h"
#include "engine/cpu_model.h"
#include "engine/deprivileged.h"
#include "engine/exit.h"
#include "engine/interrupt_controller.h"
#include "engine/registrations.h"
#include "engine/vcpu_state.h"
#include "engine/xen_events.h"
#include "memory/guest_memory.h"
#include "telemetry/counter.h"

namespace bulkhead::engine {

enum class EngineKind : u8 { kKvm, kMshv, kXen, kDbt };
std::string_view engine_name(EngineKind kind);

struct Capabilities {
  unsigned max_vcpus = 0;
  bool lapic_in_engine = false;  // LAPICs and HLT are the engine's
  bool dirty_log = false;
};

// What probe() found. `reason` is empty when usable; otherwise it says what is missing and what to do about it.
struct Probe {
  EngineKind kind;
  bool usable = false;
  std::string reason;
  Capabilities capabilities;
};

// Interrupts from an 8259: level of its INT pin, and the acknowledge cycle that yields a vector. Any thread.
class ExtIntSource {
 public:
  virtual ~ExtIntSource() = default;
  virtual std::optional<u8> acknowledge() = 0;  // the vector, or nothing if the request went away
};

class Vcpu {
 public:
  virtual ~Vcpu() = default;
  // Runs the guest on the calling thread (always the same one) until it needs us. The exit belongs to the vCPU and is
  // valid until the next run(), which takes the caller's answer from it; see exit.h for what is owed.
  virtual Exit& run() = 0;
  // Makes a running run(), or the next one, return KickedExit soon. Any thread.
  virtual void kick() = 0;
  // Only between run() calls, on the vCPU's thread or while no thread runs it. An exit that owes completion
  // (port or MMIO read) is completed first by run(); state() before that shows the guest before the instruction.
  virtual VcpuState state() = 0;
  virtual Result<void> set_state(const VcpuState& state) = 0;
  // Memory by linear address, as the guest's present privilege may reach it, copied while the vCPU stands between two
  // run() calls, also while an exit's answer is owed. Devices' memory reads as all ones and is not written. False: some
  // of it would fault; a prefix may be done.
  [[nodiscard]] virtual bool read_virtual(Gva at, std::span<std::byte> out) = 0;
  [[nodiscard]] virtual bool write_virtual(Gva at, std::span<const std::byte> in) = 0;
  virtual std::string describe() = 0;                         // registers and the bytes at RIP, for a failure report
  virtual const telemetry::CounterSet& counters() const = 0;  // engine-internal counters; readable any time
};

// What the guest is promised of a hypervisor, as far as an engine has a part in it. With kNone and kKvm hypercalls may
// be answered without an exit.
enum class ParavirtAbi : u8 { kNone, kXen, kKvm };

struct PartitionConfig {
  unsigned vcpus = 1;  // 1..max_vcpus
  ParavirtAbi abi = ParavirtAbi::kNone;
  CpuModel cpu_model;  // already cut down to the host
  // Engine-specific settings by name, e.g. {"dbt.mode","interpreter"}. One that the engine does not know is refused.
  std::vector<std::pair<std::string, std::string>> options;
};

// A guest: its memory map, its vCPUs, its interrupt controllers. MsiSink::send delivers MSIs, from any thread.
class Partition : public MsiSink {
 public:
  virtual Vcpu& vcpu(unsigned index) = 0;  // index < config.vcpus; BSP is 0 and runnable, the others wait for SIPI
  // Where the engine has IOAPIC and 8259s itself; nullptr: they are the machine's. Where it has, the 8259's pin below
  // and the EOI handler have no meaning.
  virtual InterruptController* interrupt_controller() { return nullptr; }
  // The 8259's INT pin, wired to LINT0 of the BSP. Any thread.
  virtual void set_extint(bool asserted) = 0;
  virtual void set_extint_source(ExtIntSource* source) = 0;  // before the first run()
  virtual void inject_nmi(unsigned vcpu) = 0;                // any thread
  // An interrupt past the LAPIC, taken as soon as interrupts are on: no priority counts, no EOI is owed. One that is
  // not taken yet is replaced. Any thread.
  virtual void inject_direct(unsigned vcpu, u8 vector) = 0;
  // Makes the vCPUs run a guest without privilege; see deprivileged.h. Before the first run(); `guest` outlives us.
  virtual Result<void> set_deprivileged(DeprivilegedGuest& guest) {
    (void)guest;
    return fail("this engine cannot run a guest kernel without privilege");
  }
  // Of a deprivileged guest: when it returns, no vCPU writes to this page through a translation that it looked up
  // before. From a DeprivilegedGuest's call; the locks that it holds must not be wanted by guest code itself. The vCPUs
  // in `innocent` are known to have no such translation.
  virtual void stop_writes(u64 gpa_page, u64 innocent) { (void)gpa_page, (void)innocent; }
  virtual u64 guest_tsc() const = 0;                            // of the vCPUs, as far as they agree; any thread
  virtual void signal_attention(unsigned vcpu) { (void)vcpu; }  // of a deprivileged guest; any thread
  // The instruction by which a guest's kernel in 64-bit mode makes a HypercallExit, at most 8 bytes, with the registers
  // as the exit says; it changes none but RAX.
  virtual std::vector<u8> hypercall_code() const { return {0x0f, 0x01, 0xc1}; }  // VMCALL
  // Where the engine can carry Xen's event channels itself, and was promised them (ParavirtAbi::kXen); nullptr: it
  // cannot.
  virtual XenEvents* xen_events() { return nullptr; }
  // A write of the guest's there adds 1 to the eventfd, and is no exit. On every engine; `eventfd` outlives the
  // registration. Before the vCPUs run, or while they do; from any thread. Errors: there is one already, or too many.
  virtual Result<std::unique_ptr<Registration>> notify_on_write(const WritePlace& place, int eventfd) = 0;
  // An eventfd that interrupts the guest. On every engine. Errors: the host has no descriptor left.
  virtual Result<std::unique_ptr<InterruptRegistration>> interrupt_on_event() {
    return EmulatedRegistrations::add_interrupt(*this);
  }
  // Whether these two cost less than an exit and a send() do.
  virtual bool registrations_are_cheap() const { return false; }
  // Reads of the page at `at`, where no memory is, come from `page` (page aligned, outlives us) without an exit; writes
  // are exits as ever. False: this engine cannot, and reads are exits, too. Before the vCPUs run.
  virtual bool show_page(Gpa at, const std::byte* page) {
    (void)at, (void)page;
    return false;
  }

  // ---- which pages of RAM were written, by the guest or by whoever says GuestMemory::note_written(). Any thread.
  // From now on, or no longer. Errors: the engine cannot.
  virtual Result<void> track_writes(bool on) {
    (void)on;
    return fail("this engine cannot tell which pages a guest writes");
  }
  // Their numbers (GuestMemory::page_number) since track_writes() or the last call, ascending.
  virtual Result<std::vector<u64>> take_written() { return std::vector<u64>{}; }

  // Called (on some vCPU thread) when the guest writes EOI for a vector that a level-triggered IOAPIC entry owns.
  virtual void set_eoi_handler(std::function<void(u8 vector)> handler) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual Probe probe() const = 0;  // cheap enough for every start; never creates a partition
  // `memory` must outlive the partition.
  virtual Result<std::unique_ptr<Partition>> create(const PartitionConfig& config, GuestMemory& memory) = 0;
};

}  // namespace bulkhead::engine
