// The commands for zones that run already, each in a process of its own: they are asked through their control sockets.
#include <filesystem>
#include <nlohmann/json.hpp>

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

void show(const ZoneAskCommand& command, const Json& answer) {
  const bool by_force = answer.value("by_force", false);
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

int zone_ask_command(const ZoneAskCommand& command, Surroundings& around) {
  ZoneAskCommand absolute = command;
  if (command.request.verb == Verb::kDiskAdd) absolute.request.file = std::filesystem::absolute(command.request.file);
  const auto answer = ask(command.name, absolute.request);
  if (!answer) return say_failure(answer.error(), around);
  show(command, *answer);
  return 0;
}

}  // namespace bulkhead::control
