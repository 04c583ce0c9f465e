#include "zone/run_zone.h"

#include <fmt/ranges.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <thread>

#include "base/assert.h"
#include "base/start_code.h"
#include "guest/agent/volumes.h"
#include "zone/agent_loop.h"
#include "zone/kernel/initramfs.h"
#include "zone/kernel/kernel_store.h"
#include "zone/machine_parts.h"
#include "zone/session/terminal.h"
#include "zone/zone_control.h"

namespace bulkhead::zone {
namespace {

constexpr std::size_t kShownLines = 20;
constexpr std::string_view kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string command_line(engine::VirtBackend backend, const RootDisk& root, std::size_t disks, bool files,
                         const std::string& append) {
  // quiet: each console byte is an exit. panic=-1: a panic becomes a reset, which we see at once. no_timer_check: the
  // kernel's test whether PIT interrupts arrive in time fails when the host has no time for us, not when they are lost.
  const std::string_view hardware =
      backend == engine::VirtBackend::kPv ? "console=hvc0 bulkhead.disk=xvda" : "console=ttyS0 no_timer_check";
  std::string line = fmt::format("{} quiet panic=-1 bulkhead.root={} bulkhead.rootfs={}", hardware,
                                 root.access == RootAccess::kWritable ? "writable"
                                 : root.access == RootAccess::kMemory ? "memory"
                                                                      : "overlay",
                                 format_name(root.format));
  line += fmt::format(" bulkhead.disks={}", disks);
  if (files) line += fmt::format(" {}={}", agent::kFilesWord, SharedFiles::command_line(backend));
  if (!append.empty()) line += " " + append;
  return line;
}

// The share that a volume is.
std::string volume_share(std::size_t index) { return fmt::format("volume{}", index); }

std::vector<fs::ShareSpec> all_shares(const ZoneSpec& spec) {
  std::vector<fs::ShareSpec> shares = spec.machine.shares;
  for (std::size_t i = 0; i < spec.volumes.size(); ++i)
    shares.push_back({volume_share(i), std::filesystem::absolute(spec.volumes[i].host), spec.volumes[i].read_only});
  return shares;
}

Result<std::string> start_request(const ZoneSpec& spec, const std::vector<net::Network>& networks) {
  StartRequest request{.terminal = spec.terminal,
                       .hostname = spec.machine.name,
                       .directory = spec.directory,
                       .user = spec.user,
                       .arguments = spec.command};
  for (const net::Network& network : networks) request.networks.push_back(network.for_agent());
  for (std::size_t i = 0; i < spec.volumes.size(); ++i)
    request.volumes.push_back(
        fmt::format("{} {} {}", volume_share(i), spec.volumes[i].read_only ? "ro" : "rw", spec.volumes[i].guest));
  if (const auto size = our_terminal_size()) {
    request.columns = size->columns;
    request.rows = size->rows;
  }
  const char* const term = ::getenv("TERM");
  request.environment =
      command_environment(spec.environment, spec.terminal ? (term != nullptr ? term : "linux") : nullptr);
  std::string encoded = encode_start_request(request);
  if (encoded.empty()) return fail("the command with its arguments and environment is too long for a zone");
  return encoded;
}

// Kernel, root disk and initramfs of the spec, as parts of a machine.
Result<MachineParts> prepare(const ZoneSpec& spec, std::vector<net::Network> networks, Cache& cache, Workshop& workshop,
                             Report& report) {
  BH_ASSIGN(const KernelImage kernel, resolve_kernel(spec.machine.kernel, cache, workshop));
  describe_machine(spec.machine, kernel.path, report);
  BH_ASSIGN(const RootDisk root, prepare_rootfs(spec.rootfs, cache, workshop));
  std::vector<DiskSpec> first;
  if (!root.path.empty()) first.push_back({root.path, root.access == RootAccess::kOverlay});
  BH_ASSIGN(MachineParts parts, machine_parts(spec.machine, first, std::move(networks)));
  BH_ASSIGN(parts.shared_files, SharedFiles::open(all_shares(spec), spec.machine.backend, parts.config));
  const bool files = parts.shared_files != nullptr;
  parts.config.kernel_path = kernel.path;
  parts.config.initrd_path = spec.machine.initrd;
  if (spec.machine.initrd.empty()) {
    BH_ASSIGN(parts.config.initrd_path,
              initramfs_for(kernel, {spec.machine.backend, root.format, root.access, files}, cache, workshop));
  }
  parts.config.command_line =
      command_line(spec.machine.backend, root, parts.config.disks.size(), files, spec.machine.append);
  return parts;
}

ZoneEnd run_machine(machine::Machine& machine, const MachineParts& parts, AgentLoop& loop, ZoneControl& control,
                    ConsoleLog& console, Report& report) {
  std::thread runner{[&] { loop.machine_finished(machine.run()); }};
  AgentLoop::Result result = loop.run();
  runner.join();
  control.ended(result.by_force);
  control.detach();
  take_statistics(machine, report);
  if (parts.shared_files != nullptr) report.files = parts.shared_files->statistics();
  ZoneEnd end{result.exit_status, std::move(result.error), {}};
  if (result.console_tells) end.console_lines = console.last_lines(kShownLines);
  return end;
}

}  // namespace

std::vector<std::string> command_environment(const std::vector<std::string>& extra, const char* term) {
  std::vector<std::string> out = {"PATH=" + std::string{kPath}, "HOME=/root"};
  if (term != nullptr) out.push_back(std::string{"TERM="} + term);
  for (const std::string& variable : extra) {
    const std::string_view name = std::string_view{variable}.substr(0, variable.find('=') + 1);
    std::erase_if(out, [&](const std::string& other) { return other.starts_with(name); });
    out.push_back(variable);
  }
  return out;
}

Result<ZoneEnd> run_zone(const ZoneSpec& spec, engine::Engine& engine, Cache& cache, Workshop& workshop,
                         Report& report) {
  set_zone_identity(spec.machine.name);
  BH_TRY(start_request(spec, {}));  // before it has cost anything
  BH_ASSIGN(std::vector<net::Network> networks, open_networks(spec.machine));
  Wake wake;
  BH_ASSIGN(const auto control,
            ZoneControl::open(spec.machine, report, fmt::format("run {}", fmt::join(spec.command, " ")), wake));
  BH_ASSIGN(MachineParts parts, prepare(spec, std::move(networks), cache, workshop, report));
  ConsoleLog console{wake};
  LoggedConsole uart{console}, hvc{console};
  AgentPort port{wake};
  parts.config.uart = &uart;
  auto& ports = parts.config.console_ports;
  ports.insert(ports.begin(), {{"", &hvc, true}, {agent::kPortName, &port, false}});
  BH_ASSIGN(const auto machine, make_machine(engine, spec.machine.backend, parts.config));
  report.milestones.kernel_loaded = HostClock{}.now();
  BH_TRY(networks_ready(parts));
  BH_ASSIGN(std::string request, start_request(spec, parts.networks));
  std::optional<RawTerminal> raw;
  if (spec.terminal && ::isatty(STDIN_FILENO) == 1) {
    BH_ASSIGN(RawTerminal entered, RawTerminal::enter(STDIN_FILENO));
    raw.emplace(std::move(entered));
  }
  AgentLoop loop{
      {std::move(request), spec.command.front(), spec.terminal, spec.boot_timeout_s * Nanoseconds{1'000'000'000}},
      port,
      console,
      wake,
      workshop,
      report.milestones,
      [&] { machine->stop(); },
      [&] { control->serve(); }};
  control->attach(*machine, parts, report, loop);
  give_back_start_code();
  return run_machine(*machine, parts, loop, *control, console, report);
}

}  // namespace bulkhead::zone
