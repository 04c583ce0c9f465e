#include <signal.h>
#include <unistd.h>

#include <optional>
#include <thread>

#include "base/assert.h"
#include "base/log.h"
#include "base/start_code.h"
#include "zone/boot_loop.h"
#include "zone/kernel/kernel_store.h"
#include "zone/machine_parts.h"
#include "zone/run_zone.h"
#include "zone/session/terminal.h"
#include "zone/zone_control.h"

namespace bulkhead::zone {
namespace {

using machine::Outcome;

ZoneEnd end_of(const Outcome& outcome, BootLoop::Why why, const ConsoleLog& log, int signal_number) {
  switch (outcome.kind) {
    case Outcome::Kind::kPowerOff:
    case Outcome::Kind::kReset:
      return {0, {}, {}};
    case Outcome::Kind::kDebugExit:
      return {outcome.status, {}, {}};
    case Outcome::Kind::kTripleFault:
      return {125, "the guest ended by a triple fault: " + outcome.reason, {}};
    case Outcome::Kind::kCrashed:
    case Outcome::Kind::kHalted: {
      const std::string panic = log.panic();
      if (!panic.empty()) return {125, "the guest kernel panicked: " + panic, {}};
      if (outcome.kind == Outcome::Kind::kCrashed) return {125, "the guest crashed: " + outcome.reason, {}};
      return {125, "all vCPUs of the guest halted for good: " + outcome.reason, {}};
    }
    case Outcome::Kind::kEngineFailure:
      return {125, "the engine cannot go on: " + outcome.reason, {}};
    case Outcome::Kind::kStopped:
      break;
  }
  switch (why) {
    case BootLoop::Why::kSignal:
      return {128 + signal_number, {}, {}};
    case BootLoop::Why::kPanic:
      return {125, "the guest kernel panicked: " + log.panic(), {}};
    case BootLoop::Why::kNobodyListens:
      return {128 + SIGPIPE, {}, {}};
    case BootLoop::Why::kTold:
      return {128 + SIGTERM, {}, {}};
    case BootLoop::Why::kKilled:
      return {128 + SIGKILL, {}, {}};
    case BootLoop::Why::kUser:
      return {0, {}, {}};
    case BootLoop::Why::kMachineEnded:
      break;
  }
  return {125, "the machine stopped without a reason", {}};
}

// One life of the machine, from its reset to its end.
Result<Outcome> one_life(const MachineSpec& spec, MachineParts& parts, engine::Engine& engine, BootLoop& loop,
                         ZoneControl& control, Report& report) {
  BH_ASSIGN(const auto machine, make_machine(engine, spec.backend, parts.config));
  BH_TRY(networks_ready(parts));
  if (!report.milestones.kernel_loaded) report.milestones.kernel_loaded = HostClock{}.now();
  control.attach(*machine, parts, report, loop);
  give_back_start_code();
  std::thread runner{[&] { loop.machine_finished(machine->run()); }};
  Outcome outcome = loop.run(*machine, [&] { control.serve(); });
  runner.join();
  control.detach();
  take_statistics(*machine, report);
  return outcome;
}

}  // namespace

Result<ZoneEnd> boot_zone(const BootSpec& spec, engine::Engine& engine, Cache& cache, Workshop& workshop,
                          Report& report) {
  set_zone_identity(spec.machine.name);
  BH_ASSIGN(std::vector<net::Network> networks, open_networks(spec.machine));
  Wake wake;
  BH_ASSIGN(const auto control, ZoneControl::open(spec.machine, report, "boot " + spec.machine.kernel, wake));
  BH_ASSIGN(const KernelImage kernel, resolve_kernel(spec.machine.kernel, cache, workshop));
  workshop.progress.done();
  describe_machine(spec.machine, kernel.path, report);
  BH_ASSIGN(MachineParts parts, machine_parts(spec.machine, {}, std::move(networks)));
  ConsoleLog log{wake};
  ConsoleHub hub{wake, log};
  parts.config.kernel_path = kernel.path;
  parts.config.initrd_path = spec.machine.initrd;
  parts.config.modules = spec.modules;
  parts.config.command_line = spec.machine.append;
  parts.config.uart = &hub.uart();
  parts.config.console_ports = {{"", &hub.hvc(), true}};
  parts.config.debugcon = spec.debugcon ? &hub.debugcon() : nullptr;
  parts.config.debug_exit = spec.debug_exit;
  std::optional<RawTerminal> raw;
  if (::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1) {
    BH_ASSIGN(RawTerminal entered, RawTerminal::enter(STDIN_FILENO));
    raw.emplace(std::move(entered));
    log_line(LogLevel::kInfo, "Ctrl-A x ends the zone\r");
  }
  BootLoop loop{hub, log, wake, workshop, report.milestones};
  while (true) {
    BH_ASSIGN(const Outcome outcome, one_life(spec.machine, parts, engine, loop, *control, report));
    hub.detach();
    if (outcome.kind == Outcome::Kind::kReset && spec.reboot && !loop.told_to_end()) {
      ++report.resets;
      continue;
    }
    control->ended(loop.why() == BootLoop::Why::kTold);
    loop.drain();
    return end_of(outcome, loop.why(), log, workshop.signals->first());
  }
}

}  // namespace bulkhead::zone
