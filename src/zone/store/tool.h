// Running the host's own tools (mkfs.erofs, mmdebstrap, apt-get, ...): the one place that starts other programs.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"
#include "zone/store/progress.h"
#include "zone/store/signals.h"

namespace bulkhead::zone {

// What every long-running step of preparing a zone is handed. Both outlive the step.
struct Workshop {
  Progress& progress;
  EndSignals* signals = nullptr;  // null: nothing ends a tool early
};

struct Tool {
  std::vector<std::string> command;  // found through PATH and the usual sbin folders
  std::string package;               // the Debian package that has it, for the error when it is missing
  std::vector<std::pair<std::string, std::string>> environment = {};  // on top of ours
  std::string directory = {};                                         // empty: ours
  bool keep_output = false;  // stdout into the result instead of the error's tail
};

// Runs to the end with stdin empty. The tool gets a process group of its own and dies with us; when one of the signals
// of `workshop` arrives it is asked to end, then made to. Returns its stdout when kept.
// Errors: not found (with the package to install), or not status 0 (with the last lines it wrote to stderr).
Result<std::string> run_tool(const Tool& tool, Workshop& workshop);

// Where a tool is, or an empty string.
std::string find_tool(const std::string& name);

}  // namespace bulkhead::zone
