// What may be asked of a running zone, and its form on the wire: {"execute": "...", "arguments": {...}}, answered by
// {"return": ...} or {"error": "..."}. Pure; everything is believed only after it was checked.
#pragma once
#include <string>
#include <string_view>

#include "base/ints.h"
#include "base/result.h"
#include "block/job/job_types.h"

namespace bulkhead::zone {

inline constexpr std::size_t kMaxRequestLine = 64_KiB;  // without its newline

struct Request {
  enum class Verb : u8 {
    kQuery,
    kInspect,
    kDiskAdd,
    kDiskRemove,
    kStop,
    kReboot,
    kKill,
    kDiskLimit,
    kDiskResume,
    kJobStart,
    kJobList,
    kJobChange
  };
  static constexpr unsigned kMaxTimeout = 86400;

  Verb verb = Verb::kQuery;
  std::string file;         // kDiskAdd: an absolute path
  bool read_only = false;   // kDiskAdd
  std::string options;      // kDiskAdd: as behind --disk FILE, kDiskLimit: limits alone; "cache=none,iops=500"
  std::string device;       // kDiskRemove, kDiskLimit, kDiskResume, kJobStart: "xvdb"
  bool force = false;       // kDiskRemove
  unsigned timeout_s = 10;  // kStop
  block::JobRequest job;    // kJobStart: paths are absolute
  std::string id;           // kJobChange
  std::string action;       // kJobChange: pause, resume, cancel, complete, dismiss or speed
  u64 speed = 0;            // kJobChange: bytes a second, 0: no limit
};

// Errors: one line that says what is wrong with the request, fit to be shown to whoever sent it.
Result<Request> parse_request(std::string_view line);
std::string encode_request(const Request& request);  // with its newline

// Answers, with their newline. `json`: one JSON value.
std::string answer_line(std::string_view json);
std::string error_line(std::string_view message);
// Errors: what the zone says is wrong, or that it is no answer.
Result<std::string> parse_answer(std::string_view line);  // the JSON value

}  // namespace bulkhead::zone
