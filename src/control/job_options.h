// `bulkhead zone job ...`, read.
#pragma once
#include <CLI/CLI.hpp>

#include "control/options.h"

namespace bulkhead::control {

// Texts as CLI11 fills them.
struct JobOptions {
  std::string zone, speed = "0", sync = "full", on_source_error = "report", on_target_error = "report";
  zone::Request request;
  bool wait = false, json = false, chosen = false;
};

void add_job_verbs(CLI::App& zone, JobOptions& raw);
Result<ZoneAskCommand> finish_job(const JobOptions& raw);

}  // namespace bulkhead::control
