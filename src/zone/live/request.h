// What may be asked of a running zone, and its form on the wire: {"execute": "...", "arguments": {...}}, answered by
// {"return": ...} or {"error": "..."}. Pure; everything is believed only after it was checked.
#pragma once
#include <string>
#include <string_view>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

inline constexpr std::size_t kMaxRequestLine = 64_KiB;  // without its newline

struct Request {
  enum class Verb : u8 { kQuery, kInspect, kDiskAdd, kDiskRemove, kStop, kReboot, kKill };
  static constexpr unsigned kMaxTimeout = 86400;

  Verb verb = Verb::kQuery;
  std::string file;         // kDiskAdd: an absolute path
  bool read_only = false;   // kDiskAdd
  std::string device;       // kDiskRemove: "xvdb"
  bool force = false;       // kDiskRemove
  unsigned timeout_s = 10;  // kStop
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
