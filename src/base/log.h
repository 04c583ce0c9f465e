// One-line messages to stderr for the person who started us. A guest can never make one of these without a limit:
// what a guest does is counted (telemetry/), not logged.
#pragma once
#include <fmt/format.h>

#include <string_view>

namespace bulkhead {

enum class LogLevel { kError, kWarning, kInfo, kDebug };

void set_log_level(LogLevel level);  // default kWarning
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view message);  // any thread

template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kWarning)) log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kDebug)) log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace bulkhead
