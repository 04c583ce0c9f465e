// The commands for zones that run already, each in a process of its own: they are asked through their control sockets.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/log.h"
#include "control/commands.h"
#include "zone/live/client.h"
#include "zone/live/socket_place.h"

namespace bulkhead::control {
namespace {

using Json = nlohmann::ordered_json;
using zone::Request;
using Verb = zone::Request::Verb;

constexpr Nanoseconds kSecond = 1'000'000'000;

// The guest has its time (for a disk: the bus's patience); what is beyond that is the zone's own slowness.
Nanoseconds patience(const Request& request) {
  const unsigned guest = request.verb == Verb::kStop ? request.timeout_s : request.verb == Verb::kDiskRemove ? 10 : 0;
  return (guest + 30) * kSecond;
}

Result<Json> ask(const std::string& name, const Request& request) {
  BH_ASSIGN(zone::ZoneClient client, zone::ZoneClient::connect(zone::socket_folder(), name));
  BH_ASSIGN(const std::string answer, client.ask(request, patience(request)));
  return Json::parse(answer);
}

std::string as_table(const Json& jobs) {
  std::string out;
  for (const Json& job : jobs) {
    const u64 done = job.value("current-progress", u64{0}), total = job.value("total-progress", u64{0});
    const std::string outcome = job["outcome"].is_string() ? job["outcome"].get<std::string>() : "";
    out += fmt::format("{:<14} {:<7} {:<6} {:<10} {:>6.2f} %  {}\n", job.value("id", ""), job.value("type", ""),
                       job.value("device", ""), outcome.empty() ? job.value("status", "") : outcome,
                       total == 0 ? 100.0 : 100.0 * static_cast<double>(done) / static_cast<double>(total),
                       job["last-error"].is_string() ? job["last-error"].get<std::string>() : job.value("file", ""));
  }
  return out.empty() ? "no jobs\n" : out;
}

void show(const ZoneAskCommand& command, const Json& answer) {
  const bool by_force = answer.is_object() && answer.value("by_force", false);
  switch (command.request.verb) {
    case Verb::kInspect:
      return print(answer.dump(2) + "\n");
    case Verb::kDiskAdd:
      return print(answer.value("device", "") + "\n");
    case Verb::kDiskRemove:
      if (by_force) log_warning("the guest did not let go of {}: it was taken away", command.request.device);
      return;
    case Verb::kStop:
      if (by_force)
        log_warning("the zone '{}' did not end within {} s and was stopped", command.name, command.request.timeout_s);
      return;
    case Verb::kJobStart:
      return print(answer.value("id", "") + "\n");
    case Verb::kJobList:
      return print(command.json ? answer.dump(2) + "\n" : as_table(answer));
    case Verb::kJobChange:
    case Verb::kDiskLimit:
    case Verb::kDiskResume:
    case Verb::kQuery:
    case Verb::kReboot:
    case Verb::kKill:
      return;
  }
}

std::string as_line(const Json& zone) {
  return fmt::format("{:<20} {:>8} {:<5} {:<5} {:<20} {:<9} {}\n", zone.value("name", ""), zone.value("pid", 0),
                     zone.value("virt_backend", ""), zone.value("engine", ""), zone.value("since", ""),
                     zone.value("state", ""), zone.value("what", "").substr(0, 60));
}

}  // namespace

int zone_list_command(const ZoneListCommand& command) {
  Json zones = Json::array();
  for (const std::string& name : zone::list_zones(zone::socket_folder()))
    if (auto answer = ask(name, {}); answer && answer->is_object()) zones.push_back(std::move(*answer));
  if (command.json) {
    print(zones.dump(2) + "\n");
    return 0;
  }
  if (zones.empty()) {
    print("no zones run\n");
    return 0;
  }
  std::string text = fmt::format("{:<20} {:>8} {:<5} {:<5} {:<20} {:<9} {}\n", "NAME", "PID", "VIRT", "ENGINE", "SINCE",
                                 "STATE", "WHAT");
  for (const Json& zone : zones) text += as_line(zone);
  print(text);
  return 0;
}

// Looks now and then until the job has ended, or is ready and was not asked to complete.
static int wait_for_job(const ZoneAskCommand& command, const std::string& id, Surroundings& around) {
  const bool completes = command.request.verb == Verb::kJobChange || command.request.job.auto_complete;
  while (true) {
    Request list;
    list.verb = Verb::kJobList;
    const auto jobs = ask(command.name, list);
    if (!jobs) return say_failure(jobs.error(), around);
    const auto job = std::ranges::find_if(*jobs, [&](const Json& one) { return one.value("id", "") == id; });
    if (job == jobs->end()) return say_failure({fmt::format("the zone has no job '{}'", id)}, around);
    const std::string status = job->value("status", "");
    const bool stopped = status == "stopped" || (*job)["outcome"] == "failed" || (*job)["outcome"] == "cancelled";
    if (stopped) {
      const std::string why =
          (*job)["last-error"].is_string() ? (*job)["last-error"].get<std::string>() : "it was cancelled";
      return say_failure({fmt::format("the job '{}': {}", id, why)}, around);
    }
    if (status == "concluded" || (status == "ready" && !completes)) break;
    if (around.workshop.signals != nullptr && around.workshop.signals->first() != 0) return 130;
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
  }
  print(id + "\n");
  return 0;
}

int zone_ask_command(const ZoneAskCommand& command, Surroundings& around) {
  ZoneAskCommand absolute = command;
  block::JobRequest& job = absolute.request.job;
  for (std::string* const path : {&absolute.request.file, &job.target, &job.base, &job.top, &job.key_file})
    if (!path->empty()) *path = std::filesystem::absolute(*path);
  const auto answer = ask(command.name, absolute.request);
  if (!answer) return say_failure(answer.error(), around);
  if (command.wait)
    return wait_for_job(command, answer->is_object() ? answer->value("id", command.request.id) : command.request.id,
                        around);
  show(command, *answer);
  return 0;
}

}  // namespace bulkhead::control
