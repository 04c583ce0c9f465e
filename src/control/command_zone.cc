#include <fcntl.h>

#include <algorithm>
#include <functional>

#include "base/fd.h"
#include "base/log.h"
#include "control/commands.h"
#include "control/engines.h"
#include "zone/run_zone.h"

namespace bulkhead::control {
namespace {

using zone::Report;
using zone::ZoneEnd;
using Work = std::function<Result<ZoneEnd>(engine::VirtBackend, engine::Engine&, zone::Cache&, Report&)>;

// Before anything is started: a report that cannot be written must not cost a whole run.
Result<void> check_report_path(const std::string& path) {
  if (path.empty()) return {};
  const UniqueFd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
  if (!fd) return fail_errno("opening the report {}", path);
  return {};
}

Result<ZoneEnd> choose_and_work(const Common& common, Report& report, const Work& work) {
  report.requested_backend = engine::backend_name(common.request.backend);
  report.requested_engine = common.request.engine ? engine::engine_name(*common.request.engine) : "auto";
  BH_ASSIGN(const engine::EngineChoice choice, engine::choose(common.request, engine::probe_host()));
  if (choice.backend == engine::VirtBackend::kPv && common.abi != machine::Abi::kXen)
    return fail("--abi {} does not go with virt backend pv, which is Xen's ABI ({}); use -V pvh, or leave --abi out",
                common.abi == machine::Abi::kKvm ? "kvm" : "none", choice.reason);
  report.backend = engine::backend_name(choice.backend);
  report.engine = engine::engine_name(choice.engine);
  report.reason = choice.reason;
  BH_ASSIGN(const auto engine, make_engine(choice.engine));
  BH_ASSIGN(zone::Cache cache, zone::Cache::open());
  return work(choice.backend, *engine, cache, report);
}

void show(const ZoneEnd& end) {
  if (!end.console_lines.empty()) {
    log_line(LogLevel::kError, "the guest's last console lines:");
    for (const std::string& line : end.console_lines) log_line(LogLevel::kError, "| " + line);
  }
  if (!end.error.empty()) log_line(LogLevel::kError, end.error);
}

int start_zone(const Common& common, Surroundings& around, const Work& work) {
  if (auto writable = check_report_path(common.report_path); !writable) return say_failure(writable.error(), around);
  Report report;
  report.milestones.process_start = around.process_start;
  auto end = choose_and_work(common, report, work);
  around.workshop.progress.done();
  if (end) {
    report.exit_status = end->exit_status;
    report.error = end->error;
    show(*end);
  } else {
    report.error = end.error().message;
    report.exit_status = say_failure(end.error(), around);
  }
  if (common.json) log_line(LogLevel::kError, "report " + zone::report_json(report, -1));
  if (common.report_path.empty()) return report.exit_status;
  if (auto written = zone::write_report(report, common.report_path); !written) say_failure(written.error(), around);
  return report.exit_status;
}

void add_default_network(zone::MachineSpec& spec) {
  if (auto network = net::default_network())
    spec.networks.push_back(std::move(*network));
  else
    log_line(LogLevel::kWarning, network.error().message);
}

// A container image as the root says what is to be run, as whom, and where.
Result<void> take_image(const zone::CommandChanges& changes, zone::ZoneSpec& spec, zone::Cache& cache,
                        zone::Workshop& workshop) {
  const auto reference = spec.rootfs.source.empty() ? std::nullopt : zone::parse_reference(spec.rootfs.source);
  if (!reference) {
    if (spec.command.empty())
      return fail("there is no command to run: put it behind --, as in `bulkhead run {} -- uname -a`",
                  spec.rootfs.source);
    if (!changes.user.empty() || changes.own_entrypoint)
      return fail("--user and --entrypoint are for container images, and {} is none",
                  spec.rootfs.source.empty() ? "the default root file system" : spec.rootfs.source);
    return {};
  }
  BH_ASSIGN(const zone::StoredImage image, zone::load_image(*reference, cache, workshop));
  BH_ASSIGN(zone::ImageCommand command, zone::command_of(image, changes));
  spec.rootfs.source = image.rootfs;
  spec.command = std::move(command.command);
  spec.environment = std::move(command.environment);
  spec.directory = std::move(command.directory);
  spec.user = fmt::format("{} {}", command.user.uid, command.user.gid);
  for (const u32 group : command.user.groups) spec.user += fmt::format(" {}", group);
  return {};
}

}  // namespace

int run_command(const RunCommand& command, Surroundings& around) {
  return start_zone(
      command.common, around,
      [&](engine::VirtBackend backend, engine::Engine& engine, zone::Cache& cache, Report& report) -> Result<ZoneEnd> {
        zone::ZoneSpec spec = command.spec;
        spec.machine.backend = backend;
        BH_TRY(take_image(command.changes, spec, cache, around.workshop));
        if (!spec.machine.networks_given) add_default_network(spec.machine);
        return zone::run_zone(spec, engine, cache, around.workshop, report);
      });
}

int boot_command(const BootCommand& command, Surroundings& around) {
  return start_zone(command.common, around,
                    [&](engine::VirtBackend backend, engine::Engine& engine, zone::Cache& cache, Report& report) {
                      zone::BootSpec spec = command.spec;
                      spec.machine.backend = backend;
                      return zone::boot_zone(spec, engine, cache, around.workshop, report);
                    });
}

}  // namespace bulkhead::control
