#include "zone/report.h"

#include <charconv>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace bulkhead::zone {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::string_view kGuestRam = "/memfd:bulkhead-guest-ram";
constexpr std::string_view kCode = "/memfd:bulkhead-code";

Json milliseconds(const Milestones& milestones, std::optional<Nanoseconds> at) {
  if (!at || *at < milestones.process_start) return nullptr;
  return static_cast<double>((*at - milestones.process_start) / 1000) / 1000.0;
}

Json milestones_json(const Milestones& m) {
  return {{"process_start", 0.0},
          {"kernel_loaded", milliseconds(m, m.kernel_loaded)},
          {"first_console_byte", milliseconds(m, m.first_console_byte)},
          {"agent_up", milliseconds(m, m.agent_up)},
          {"command_started", milliseconds(m, m.command_started)},
          {"command_ended", milliseconds(m, m.command_ended)}};
}

u64 mean(u64 sum, u64 count) { return count == 0 ? 0 : sum / count; }

Json exits_json(const std::vector<machine::ExitStatistics>& exits) {
  Json out = Json::object();
  for (const machine::ExitStatistics& one : exits)
    out[one.kind] = {{"count", one.count},
                     {"sum_ns", one.sum_ns},
                     {"mean_ns", mean(one.sum_ns, one.count)},
                     {"p50_ns", one.p50_ns},
                     {"p99_ns", one.p99_ns}};
  return out;
}

Json hypercalls_json(const std::vector<machine::HypercallStatistics>& hypercalls) {
  Json out = Json::object();
  for (const machine::HypercallStatistics& one : hypercalls)
    out[one.name] = {{"number", one.number}, {"count", one.count},
                     {"sum_ns", one.sum_ns}, {"mean_ns", mean(one.sum_ns, one.count)},
                     {"p50_ns", one.p50_ns}, {"p90_ns", one.p90_ns},
                     {"p99_ns", one.p99_ns}};
  return out;
}

Json disks_json(const std::vector<machine::DiskStatistics>& disks) {
  Json out = Json::object();
  for (const machine::DiskStatistics& disk : disks) {
    Json& one = out[disk.name] = Json::object();
    for (const auto& [name, value] : disk.done.counters) one[name] = value;
    Json& queues = one["queues"] = Json::array();
    for (const device::BlockStatistics::Queue& queue : disk.done.queues)
      queues.push_back({{"requests", queue.requests},
                        {"depth", queue.depth},
                        {"deepest", queue.deepest},
                        {"mean_ns", mean(queue.sum_ns, queue.requests)},
                        {"p50_ns", queue.p50_ns},
                        {"p99_ns", queue.p99_ns}});
  }
  return out;
}

Json direction_json(const device::NetStatistics::Direction& direction) {
  Json out = Json::object();
  u64 packets = 0;
  for (const auto& [name, value] : direction.counters) {
    out[name] = value;
    if (name == "packets") packets = value;
  }
  out["depth"] = direction.depth;
  out["deepest"] = direction.deepest;
  out["mean_ns"] = mean(direction.sum_ns, packets);
  out["p50_ns"] = direction.p50_ns;
  out["p99_ns"] = direction.p99_ns;
  return out;
}

Json networks_json(const std::vector<machine::NetworkStatistics>& networks) {
  Json out = Json::object();
  for (const machine::NetworkStatistics& network : networks) {
    Json queues = Json::array();
    for (const device::NetStatistics::Queue& queue : network.done.queues)
      queues.push_back({{"out", direction_json(queue.out)}, {"in", direction_json(queue.in)}});
    out[network.name] = {{"mac", network.done.mac},
                         {"mtu", network.done.mtu},
                         {"link", network.done.link_up ? "up" : "down"},
                         {"vhost", network.done.in_kernel},
                         {"queues", std::move(queues)}};
  }
  return out;
}

bool is_mapping_line(std::string_view line) {  // "55d0c000-55d0d000 r--p ..."; the other lines are "Name:  value"
  const std::string_view first = line.substr(0, line.find(' '));
  return first.contains('-') && !first.ends_with(':');
}

// Not the monitor's own: the guest's RAM, and the second view of the translations, which are mapped once to be written
// and once to be run.
bool is_counted(std::string_view mapping) {
  return !mapping.contains(kGuestRam) && !(mapping.contains(kCode) && mapping.contains(" r-xs "));
}

Json files_json(const device::FsStatistics& files) {
  Json out = Json::object();
  for (const auto& [name, value] : files.counters) out[name] = value;
  out["depth"] = files.depth;
  out["deepest"] = files.deepest;
  Json& requests = out["by_request"] = Json::object();
  for (const device::FsStatistics::Request& one : files.requests)
    requests[one.name] = {
        {"count", one.count}, {"mean_ns", mean(one.sum_ns, one.count)}, {"p50_ns", one.p50_ns}, {"p99_ns", one.p99_ns}};
  return out;
}

}  // namespace

u64 resident_bytes_beyond_guest(std::string_view smaps) {
  u64 kibibytes = 0;
  bool counted = true;
  while (!smaps.empty()) {
    const std::string_view line = smaps.substr(0, smaps.find('\n'));
    smaps.remove_prefix(std::min(line.size() + 1, smaps.size()));
    if (is_mapping_line(line)) counted = is_counted(line);
    if (!counted || !line.starts_with("Rss:")) continue;
    const std::size_t digit = line.find_first_of("0123456789");
    u64 value = 0;
    if (digit != std::string_view::npos) std::from_chars(line.data() + digit, line.data() + line.size(), value);
    kibibytes += value;
  }
  return kibibytes * 1024;
}

void take_statistics(const machine::Machine& machine, Report& report) {
  report.exits = machine.exit_statistics();
  report.hypercalls = machine.hypercall_statistics();
  report.disks = machine.disk_statistics();
  report.networks = machine.network_statistics();
  report.engine_counters = machine.engine_counters();
  report.kernel = machine.kernel_description();
  std::ifstream in{"/proc/self/smaps"};
  report.monitor_rss_bytes = resident_bytes_beyond_guest(std::string{std::istreambuf_iterator<char>{in}, {}});
}

std::string report_json(const Report& report, int indent) {
  Json counters = Json::object();
  for (const auto& [name, value] : report.engine_counters) counters[name] = value;
  const Json out = {
      {"name", report.name},
      {"requested", {{"virt_backend", report.requested_backend}, {"engine", report.requested_engine}}},
      {"resolved", {{"virt_backend", report.backend}, {"engine", report.engine}, {"reason", report.reason}}},
      {"kernel", {{"path", report.kernel_path}, {"description", report.kernel}}},
      {"cpu_model", report.cpu_model},
      {"vcpus", report.vcpus},
      {"memory_bytes", report.memory_bytes},
      {"milestones_ms", milestones_json(report.milestones)},
      {"exits", exits_json(report.exits)},
      {"hypercalls", hypercalls_json(report.hypercalls)},
      {"disk_statistics", disks_json(report.disks)},
      {"network_statistics", networks_json(report.networks)},
      {"file_statistics", report.files ? files_json(*report.files) : Json(nullptr)},
      {"engine_counters", counters},
      {"resets", report.resets},
      {"monitor_rss_bytes", report.monitor_rss_bytes},
      {"exit_status", report.exit_status},
      {"error", report.error.empty() ? Json(nullptr) : Json(report.error)}};
  return out.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Result<void> write_report(const Report& report, const std::string& path) {
  std::ofstream out{path, std::ios::trunc};
  out << report_json(report, 2) << "\n";
  out.close();
  if (!out) return fail_errno("writing the report {}", path);
  return {};
}

}  // namespace bulkhead::zone
