#include "machine/microvm/xen_abi.h"

#include <xen/hvm/params.h>

#include <utility>

#include "abi/xen/errors.h"
#include "abi/xen/pvh_interface.h"
#include "base/assert.h"
#include "base/bits.h"
#include "machine/microvm/layout.h"
#include "machine/xen/uuid.h"
#include "spec/e820.h"

namespace bulkhead::machine {
using namespace abi::xen;
using NextStep = GuestAbi::Next;

namespace {
constexpr u64 kMsiAddress = 0xFEE00000;
constexpr unsigned kMsiDestinationShift = 12;

NextStep next_step(After after) {
  switch (after) {
    case After::kRun:
      return NextStep::kRun;
    case After::kYield:
      return NextStep::kYield;
    case After::kBlock:
      return NextStep::kWait;
    case After::kDown:
      return NextStep::kDown;
    case After::kEnd:
      return NextStep::kEnd;
  }
  return NextStep::kRun;
}
}  // namespace

// A hypercall that came out of the engine as an exit.
class XenAbi::ExitCaller final : public Caller {
 public:
  ExitCaller(engine::Vcpu& vcpu, unsigned index) : vcpu_{vcpu}, index_{index} {}
  unsigned vcpu() const override { return index_; }
  bool read(u64 gva, std::span<std::byte> out) override { return vcpu_.read_virtual({gva}, out); }
  bool write(u64 gva, std::span<const std::byte> in) override { return vcpu_.write_virtual({gva}, in); }

 private:
  engine::Vcpu& vcpu_;
  const unsigned index_;
};

XenAbi::XenAbi(const engine::CpuModel& model, unsigned vcpus, engine::Partition& partition, GuestMemory& memory,
               TimerService& timers, Ports ports)
    : vcpus_{vcpus},
      partition_{partition},
      memory_{memory},
      ports_{std::move(ports)},
      frames_{memory, layout::kVirtioWindows},
      domain_{config(model, vcpus), pages(), frames_, *this, timers} {
  BH_ASSERT(memory.extra_pages() == kPages);
  // Their parameters stay 0 until somebody serves them.
  for (const auto& [page, at] : {std::pair{kStorePage, layout::kXenStorePage}, {kConsolePage, layout::kXenConsolePage}})
    BH_ASSERT(memory_.place_extra(page, at));
}

XenAbi::~XenAbi() = default;

XenPages XenAbi::pages() const {
  return {memory_.extra_page(kSharedInfo),
          {memory_.extra_page(kGrants), kGrantFrames * kPageSize},
          {memory_.extra_page(kStatus), kStatusFrames * kPageSize}};
}

DomainConfig XenAbi::config(const engine::CpuModel& model, unsigned vcpus) const {
  DomainConfig config;
  config.kind = GuestKind::kPvh;
  config.domid = kDomid;
  config.uuid = random_uuid();
  config.vcpus = vcpus;
  config.tsc_hz = model.tsc_hz;
  config.engine_events = partition_.xen_events();
  config.fifo_events = config.engine_events == nullptr;
  config.guest_tsc = [this] { return partition_.guest_tsc(); };
  for (const RamRange& range : memory_.ranges())
    config.memory_map.push_back({range.start.value, range.size, spec::e820::kRam});
  return config;
}

NextStep XenAbi::hypercall(unsigned vcpu, engine::HypercallExit& exit) {
  if (!exit.long_mode) return NextStep::kRun;  // -ENOSYS: structures of 32-bit guests are laid out differently
  if (!domain_.online(vcpu)) domain_.set_online(vcpu, true);  // started by INIT and SIPI, behind our back
  ExitCaller caller{partition_.vcpu(vcpu), vcpu};
  const Answer answer = domain_.hypercall(caller, exit.number, exit.args);
  exit.result = static_cast<u64>(answer.value);
  // An upcall that was due while the LAPIC was still off is lost, and no other follows while one is pending.
  if (domain_.upcall_pending(vcpu)) interrupt(vcpu);
  return next_step(answer.after);
}

// The low bits are the number of the page, of which there is one [xen/arch-x86/cpuid.h "Leaf 3"].
bool XenAbi::msr(unsigned, engine::MsrExit& exit) {
  if (exit.index != kHypercallPageMsr) return false;
  exit.fault = exit.write && (!is_aligned(exit.value, kPageSize) ||
                              !memory_.write(Gpa{exit.value}, hypercall_page(partition_.hypercall_code())));
  if (!exit.write) exit.value = 0;
  return true;
}

// An interrupt for an upcall; and whoever waits in a hypercall looks again.
void XenAbi::notify(unsigned vcpu) {
  if (domain_.upcall_pending(vcpu)) interrupt(vcpu);
  ports_.wake(vcpu);
}

void XenAbi::interrupt(unsigned vcpu) {
  const Upcall upcall = domain_.upcall(vcpu);
  switch (upcall.how) {
    case Upcall::How::kNone:
      return;
    case Upcall::How::kLapic:
      return partition_.send({kMsiAddress | u64{vcpu} << kMsiDestinationShift, upcall.vector});
    case Upcall::How::kDirect:
      if (engine::XenEvents* const events = partition_.xen_events(); events != nullptr) return events->look(vcpu);
      return partition_.inject_direct(vcpu, upcall.vector);
    case Upcall::How::kGsi:
      if (ports_.pulse_gsi) ports_.pulse_gsi(upcall.gsi);
  }
}

// PVH guests of ours start processors as on a PC, by INIT and SIPI.
i64 XenAbi::initialise(Caller&, unsigned, u64) { return -kXEOPNOTSUPP; }

void XenAbi::shutdown(ShutdownReason reason) {
  switch (reason) {
    case ShutdownReason::kReboot:
      return ports_.finish({Outcome::Kind::kReset, 0, {}});
    case ShutdownReason::kCrash:
      return ports_.finish({Outcome::Kind::kCrashed, 0, "the guest kernel says that it crashed"});
    case ShutdownReason::kWatchdog:
      return ports_.finish({Outcome::Kind::kCrashed, 0, "the guest's watchdog expired"});
    case ShutdownReason::kPowerOff:
    case ShutdownReason::kSuspend:  // nothing here could resume it
      return ports_.finish({Outcome::Kind::kPowerOff, 0, {}});
  }
}

}  // namespace bulkhead::machine
