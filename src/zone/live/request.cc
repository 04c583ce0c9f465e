#include "zone/live/request.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "zone/session/agent_session.h"

namespace bulkhead::zone {
namespace {

using Json = nlohmann::ordered_json;
using Verb = Request::Verb;

constexpr std::array kVerbs = {"query", "inspect", "disk-add", "disk-remove", "stop", "reboot", "kill"};
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

Result<void> take(const Json& value, const std::string& name, std::string& out) {
  if (!value.is_string()) return fail("the argument '{}' must be a string", name);
  out = value.get<std::string>();
  if (out.empty() || out.contains('\0')) return fail("the argument '{}' is empty, or holds a NUL", name);
  return {};
}

Result<void> take(const Json& value, const std::string& name, bool& out) {
  if (!value.is_boolean()) return fail("the argument '{}' must be true or false", name);
  out = value.get<bool>();
  return {};
}

Result<void> take(const Json& value, const std::string& name, unsigned& out) {
  if (!value.is_number_unsigned() || value.get<u64>() > Request::kMaxTimeout)
    return fail("the argument '{}' must be a whole number from 0 to {}", name, Request::kMaxTimeout);
  out = value.get<unsigned>();
  return {};
}

Result<void> take_argument(Request& request, const std::string& name, const Json& value) {
  if (request.verb == Verb::kDiskAdd && name == "file") return take(value, name, request.file);
  if (request.verb == Verb::kDiskAdd && name == "read-only") return take(value, name, request.read_only);
  if (request.verb == Verb::kDiskRemove && name == "device") return take(value, name, request.device);
  if (request.verb == Verb::kDiskRemove && name == "force") return take(value, name, request.force);
  if (request.verb == Verb::kStop && name == "timeout") return take(value, name, request.timeout_s);
  return fail("the request '{}' has no argument '{}'", kVerbs.at(static_cast<std::size_t>(request.verb)), shown(name));
}

Result<void> judge(const Request& request) {
  if (request.verb == Verb::kDiskAdd && !request.file.starts_with('/'))
    return fail("the argument 'file' must be there and an absolute path");
  if (request.verb == Verb::kDiskRemove && request.device.empty()) return fail("the argument 'device' must be there");
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
  Json out = {{"execute", kVerbs.at(static_cast<std::size_t>(request.verb))}};
  if (request.verb == Verb::kDiskAdd) out["arguments"] = {{"file", request.file}, {"read-only", request.read_only}};
  if (request.verb == Verb::kDiskRemove) out["arguments"] = {{"device", request.device}, {"force", request.force}};
  if (request.verb == Verb::kStop) out["arguments"] = {{"timeout", request.timeout_s}};
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
