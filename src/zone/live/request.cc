#include "zone/live/request.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <variant>

#include "zone/live/job_arguments.h"
#include "zone/session/agent_session.h"

namespace bulkhead::zone {
namespace {

using Json = nlohmann::ordered_json;
using Verb = Request::Verb;

constexpr std::array kVerbs = {"query", "inspect",    "disk-add",    "disk-remove", "stop",     "reboot",
                               "kill",  "disk-limit", "disk-resume", "job-start",   "job-list", "job-change"};
constexpr std::size_t kShown = 64;  // of a stranger's words in our errors

std::string shown(std::string_view text) { return printable(text, kShown); }

Result<Verb> verb_of(const Json& json) {
  const auto found = json.find("execute");
  if (found == json.end() || !found->is_string()) return fail("the request has no \"execute\" that is a string");
  const auto& name = found->get_ref<const std::string&>();
  const auto* const verb = std::ranges::find(kVerbs, name);
  if (verb == kVerbs.end()) return fail("there is no request '{}'", shown(name));
  return static_cast<Verb>(verb - kVerbs.begin());
}

// What each request takes, beside a job's own.
using Field = std::variant<std::string Request::*, bool Request::*, unsigned Request::*, u64 Request::*>;
struct Argument {
  Verb verb;
  std::string_view name;
  Field field;
};
const Argument kArguments[] = {
    {Verb::kDiskAdd, "file", &Request::file},        {Verb::kDiskAdd, "read-only", &Request::read_only},
    {Verb::kDiskAdd, "options", &Request::options},  {Verb::kDiskRemove, "device", &Request::device},
    {Verb::kDiskRemove, "force", &Request::force},   {Verb::kStop, "timeout", &Request::timeout_s},
    {Verb::kDiskLimit, "device", &Request::device},  {Verb::kDiskLimit, "options", &Request::options},
    {Verb::kDiskResume, "device", &Request::device}, {Verb::kJobStart, "device", &Request::device},
    {Verb::kJobChange, "id", &Request::id},          {Verb::kJobChange, "action", &Request::action},
    {Verb::kJobChange, "speed", &Request::speed},
};
constexpr std::array kActions = {"pause", "resume", "cancel", "complete", "dismiss", "speed"};

Result<void> take_argument(Request& request, const std::string& name, const Json& value) {
  for (const Argument& one : kArguments)
    if (one.verb == request.verb && one.name == name)
      return std::visit([&](auto field) { return take_json(value, name, request.*field); }, one.field);
  if (request.verb == Verb::kJobStart) return take_job_argument(request.job, name, value);
  return fail("the request '{}' has no argument '{}'", kVerbs.at(static_cast<std::size_t>(request.verb)), shown(name));
}

Result<void> judge(const Request& request) {
  if (request.verb == Verb::kDiskAdd && !request.file.starts_with('/'))
    return fail("the argument 'file' must be there and an absolute path");
  if (request.timeout_s > Request::kMaxTimeout)
    return fail("the argument 'timeout' must be a whole number from 0 to {}", Request::kMaxTimeout);
  const bool of_device = request.verb == Verb::kDiskRemove || request.verb == Verb::kDiskLimit ||
                         request.verb == Verb::kDiskResume || request.verb == Verb::kJobStart;
  if (of_device && request.device.empty()) return fail("the argument 'device' must be there");
  if (request.verb == Verb::kJobStart) return judge_job_arguments(request.job);
  if (request.verb != Verb::kJobChange) return {};
  if (request.id.empty()) return fail("the argument 'id' must be there");
  if (std::ranges::find(kActions, request.action) == kActions.end())
    return fail("the argument 'action' is one of {}", fmt::join(kActions, ", "));
  return {};
}

std::string line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace

Result<Request> parse_request(std::string_view text) {
  if (text.size() > kMaxRequestLine) return fail("the request is longer than {} bytes", kMaxRequestLine);
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return fail("the request is not a JSON object");
  Request request;
  BH_ASSIGN(request.verb, verb_of(json));
  for (const auto& [name, value] : json.items()) {
    if (name == "execute") continue;
    if (name != "arguments") return fail("the request has an unknown member '{}'", shown(name));
    if (!value.is_object()) return fail("the request's \"arguments\" are not an object");
    for (const auto& [argument, given] : value.items()) BH_TRY(take_argument(request, argument, given));
  }
  BH_TRY(judge(request));
  return request;
}

std::string encode_request(const Request& request) {
  Json out = {{"execute", kVerbs.at(static_cast<std::size_t>(request.verb))}}, arguments = Json::object();
  if (request.verb == Verb::kJobStart) arguments = job_arguments(request.job);
  for (const Argument& one : kArguments) {
    if (one.verb != request.verb) continue;
    std::visit(
        [&](auto field) {
          const auto& value = request.*field;
          // No string and an empty one are the same.
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>)
            if (value.empty()) return;
          arguments[std::string{one.name}] = value;
        },
        one.field);
  }
  if (!arguments.empty()) out["arguments"] = arguments;
  return line(out);
}

std::string answer_line(std::string_view json) { return fmt::format("{{\"return\": {}}}\n", json); }
std::string error_line(std::string_view message) { return line({{"error", message}}); }

Result<std::string> parse_answer(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_object() && json.contains("return"))
    return json["return"].dump(-1, ' ', false, Json::error_handler_t::replace);
  if (json.is_object() && json.contains("error") && json["error"].is_string())
    return fail("{}", printable(json["error"].get_ref<const std::string&>(), 1000));
  return fail("the zone's answer is none that this program knows");
}

}  // namespace bulkhead::zone
