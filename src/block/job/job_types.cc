#include "block/job/job_types.h"

#include <array>

namespace bulkhead::block {
namespace {

constexpr std::array<std::string_view, 4> kKinds = {"mirror", "backup", "stream", "commit"};
constexpr std::array<std::string_view, 3> kSyncs = {"full", "top", "none"};
constexpr std::array<std::string_view, 3> kActions = {"report", "stop", "ignore"};
constexpr std::array<std::string_view, 6> kStates = {"running", "paused",     "stopped",
                                                     "ready",   "completing", "concluded"};

template <class Value, std::size_t n>
Result<Value> parse(const std::array<std::string_view, n>& names, std::string_view text, const char* what) {
  std::string known;
  for (std::size_t i = 0; i < n; ++i) {
    if (names[i] == text) return static_cast<Value>(i);
    known += (i == 0 ? "" : ", ") + std::string{names[i]};
  }
  return fail("a job's {} is one of {}", what, known);
}

}  // namespace

std::string_view name_of(JobKind kind) { return kKinds[static_cast<u8>(kind)]; }
std::string_view name_of(JobState state) { return kStates[static_cast<u8>(state)]; }
std::string_view name_of(JobSync sync) { return kSyncs[static_cast<u8>(sync)]; }
std::string_view name_of(JobErrorAction action) { return kActions[static_cast<u8>(action)]; }
Result<JobKind> parse_job_kind(std::string_view text) { return parse<JobKind>(kKinds, text, "kind"); }
Result<JobSync> parse_job_sync(std::string_view text) { return parse<JobSync>(kSyncs, text, "sync"); }
Result<JobErrorAction> parse_job_error_action(std::string_view text) {
  return parse<JobErrorAction>(kActions, text, "answer to errors");
}

}  // namespace bulkhead::block
