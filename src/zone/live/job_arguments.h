// A job's request and status as JSON, for the control socket. Pure.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "block/job/job_types.h"

namespace bulkhead::zone {

// One JSON value into a field. Errors: of another kind, or out of range.
Result<void> take_json(const nlohmann::ordered_json& value, const std::string& name, std::string& out);
Result<void> take_json(const nlohmann::ordered_json& value, const std::string& name, bool& out);
Result<void> take_json(const nlohmann::ordered_json& value, const std::string& name, unsigned& out);
Result<void> take_json(const nlohmann::ordered_json& value, const std::string& name, u64& out);

// Errors: no such argument, or not so.
Result<void> take_job_argument(block::JobRequest& job, const std::string& name, const nlohmann::ordered_json& value);
// What is left to be judged when all arguments are there.
Result<void> judge_job_arguments(const block::JobRequest& job);
nlohmann::ordered_json job_arguments(const block::JobRequest& job);
nlohmann::ordered_json job_json(const block::JobStatus& status, const std::string& device);

}  // namespace bulkhead::zone
