#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <string>

namespace bulkhead {
namespace {
std::atomic<LogLevel> g_level{LogLevel::kWarning};
}

void set_log_level(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }
bool log_enabled(LogLevel level) { return level <= g_level.load(std::memory_order_relaxed); }

void log_line(LogLevel, std::string_view message) {
  const std::string line = fmt::format("bulkhead: {}\n", message);
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace bulkhead
