// What a zone was and did, for --report and --json.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "device/core/fs/fs_statistics.h"
#include "machine/machine.h"

namespace bulkhead::zone {

// Points of time of HostClock.
struct Milestones {
  Nanoseconds process_start = 0;
  std::optional<Nanoseconds> kernel_loaded, first_console_byte, agent_up, command_started, command_ended;
};

struct Report {
  std::string requested_backend = "auto", requested_engine = "auto";
  std::string backend, engine, reason;  // as resolved; empty when it came to nothing
  std::string name, kernel_path, kernel, cpu_model;
  unsigned vcpus = 0;
  u64 memory_bytes = 0;
  Milestones milestones;
  std::vector<machine::ExitStatistics> exits;
  std::vector<machine::HypercallStatistics> hypercalls;  // empty where the guest has no hypercalls
  std::vector<machine::DiskStatistics> disks;
  std::vector<machine::NetworkStatistics> networks;
  std::optional<device::FsStatistics> files;  // of the host, where the zone has any
  std::vector<std::pair<std::string, u64>> engine_counters;
  u64 monitor_rss_bytes = 0;  // without the guest's memory
  unsigned resets = 0;
  int exit_status = 0;
  std::string error;  // one line, when Bulkhead or the zone failed
};

std::string report_json(const Report& report, int indent);  // indent -1: one line

// Errors: the file cannot be written.
Result<void> write_report(const Report& report, const std::string& path);

// Takes what the machine knows about itself; call before it is destroyed.
void take_statistics(const machine::Machine& machine, Report& report);

// Resident memory of this process without the guest's RAM. `smaps` is /proc/self/smaps' text.
u64 resident_bytes_beyond_guest(std::string_view smaps);

}  // namespace bulkhead::zone
