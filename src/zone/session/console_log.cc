#include "zone/session/console_log.h"

#include <algorithm>

#include "zone/session/agent_session.h"

namespace bulkhead::zone {
namespace {
constexpr std::string_view kPanic = "Kernel panic - not syncing";
}

void ConsoleLog::end_line() {
  if (panic_.empty() && line_.contains(kPanic)) {
    panic_ = printable(line_.substr(line_.find(kPanic)), kLineLength);
    wake_.notify();
  }
  if (lines_.size() < kKeptLines) {
    lines_.push_back(std::move(line_));
  } else {
    lines_[next_] = std::move(line_);
    next_ = (next_ + 1) % kKeptLines;
  }
  line_.clear();
}

void ConsoleLog::feed(std::span<const std::byte> data) {
  const Lock lock{mutex_};
  if (!data.empty() && !first_) first_ = clock_.now();
  for (const std::byte byte : data) {
    const char c = static_cast<char>(byte);
    if (c == '\n') {
      end_line();
    } else if (c != '\r' && line_.size() < kLineLength) {
      line_.push_back(c);
    }
  }
}

std::optional<Nanoseconds> ConsoleLog::first_byte_at() const {
  const Lock lock{mutex_};
  return first_;
}

std::string ConsoleLog::panic() const {
  const Lock lock{mutex_};
  return panic_;
}

void ConsoleLog::forget_panic() {
  const Lock lock{mutex_};
  panic_.clear();
}

std::vector<std::string> ConsoleLog::last_lines(std::size_t count) const {
  const Lock lock{mutex_};
  std::vector<std::string> out;
  for (std::size_t i = 0; i < lines_.size(); ++i)
    out.push_back(printable(lines_[(next_ + i) % lines_.size()], kLineLength));
  if (!line_.empty()) out.push_back(printable(line_, kLineLength));
  std::erase_if(out, [](const std::string& line) { return line.empty(); });
  if (out.size() > count) out.erase(out.begin(), out.end() - static_cast<std::ptrdiff_t>(count));
  return out;
}

}  // namespace bulkhead::zone
