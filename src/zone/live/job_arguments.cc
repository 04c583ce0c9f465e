#include "zone/live/job_arguments.h"

#include "zone/session/agent_session.h"

namespace bulkhead::zone {
namespace {

using Json = nlohmann::ordered_json;
using block::JobRequest;

constexpr std::size_t kShown = 64;  // of a stranger's words in our errors

struct Text {
  std::string_view name;
  std::string JobRequest::* field;
};
const Text kTexts[] = {{"id", &JobRequest::id},
                       {"target", &JobRequest::target},
                       {"format", &JobRequest::format},
                       {"bitmap", &JobRequest::bitmap},
                       {"base", &JobRequest::base},
                       {"top", &JobRequest::top},
                       {"key-file", &JobRequest::key_file}};

// A name that is one of a few.
template <class Value>
Result<void> take_name(const Json& value, const std::string& name, Result<Value> (*parse)(std::string_view),
                       Value& out) {
  std::string text;
  BH_TRY(take_json(value, name, text));
  BH_ASSIGN(out, parse(text));
  return {};
}

}  // namespace

Result<void> take_json(const Json& value, const std::string& name, std::string& out) {
  if (!value.is_string()) return fail("the argument '{}' must be a string", name);
  out = value.get<std::string>();
  if (out.empty() || out.contains('\0')) return fail("the argument '{}' is empty, or holds a NUL", name);
  return {};
}

Result<void> take_json(const Json& value, const std::string& name, bool& out) {
  if (!value.is_boolean()) return fail("the argument '{}' must be true or false", name);
  out = value.get<bool>();
  return {};
}

Result<void> take_json(const Json& value, const std::string& name, unsigned& out) {
  if (!value.is_number_unsigned() || value.get<u64>() > ~0U)
    return fail("the argument '{}' must be a whole number from 0 to {}", name, ~0U);
  out = value.get<unsigned>();
  return {};
}

Result<void> take_json(const Json& value, const std::string& name, u64& out) {
  if (!value.is_number_unsigned()) return fail("the argument '{}' must be a whole number", name);
  out = value.get<u64>();
  return {};
}

Result<void> take_job_argument(JobRequest& job, const std::string& name, const Json& value) {
  for (const Text& text : kTexts)
    if (text.name == name) return take_json(value, name, job.*text.field);
  if (name == "kind") return take_name(value, name, block::parse_job_kind, job.kind);
  if (name == "sync") return take_name(value, name, block::parse_job_sync, job.sync);
  if (name == "on-source-error") return take_name(value, name, block::parse_job_error_action, job.on_source_error);
  if (name == "on-target-error") return take_name(value, name, block::parse_job_error_action, job.on_target_error);
  if (name == "existing") return take_json(value, name, job.existing);
  if (name == "unencrypted") return take_json(value, name, job.unencrypted);
  if (name == "auto-complete") return take_json(value, name, job.auto_complete);
  if (name == "speed") return take_json(value, name, job.speed);
  return fail("the request 'job-start' has no argument '{}'", printable(name, kShown));
}

Result<void> judge_job_arguments(const JobRequest& job) {
  for (const std::string* path : {&job.target, &job.base, &job.top, &job.key_file})
    if (!path->empty() && !path->starts_with('/')) return fail("a job's files must be absolute paths");
  return {};
}

Json job_arguments(const JobRequest& job) {
  Json out = {{"kind", block::name_of(job.kind)}};
  for (const Text& text : kTexts)
    if (!(job.*text.field).empty()) out[std::string{text.name}] = job.*text.field;
  out["sync"] = block::name_of(job.sync);
  out["existing"] = job.existing;
  out["unencrypted"] = job.unencrypted;
  out["speed"] = job.speed;
  out["on-source-error"] = block::name_of(job.on_source_error);
  out["on-target-error"] = block::name_of(job.on_target_error);
  out["auto-complete"] = job.auto_complete;
  return out;
}

Json job_json(const block::JobStatus& status, const std::string& device) {
  const char* const outcome = status.cancelled ? "cancelled" : status.failed ? "failed" : "done";
  return {{"id", status.id},
          {"type", block::name_of(status.kind)},
          {"device", device},
          {"status", block::name_of(status.state)},
          {"current-progress", status.done},
          {"total-progress", status.total},
          {"speed", status.speed},
          {"file", status.file},
          {"errors", status.errors},
          {"last-error", status.last_error.empty() ? Json(nullptr) : Json(status.last_error)},
          {"outcome", status.state == block::JobState::kConcluded ? Json(outcome) : Json(nullptr)}};
}

}  // namespace bulkhead::zone
