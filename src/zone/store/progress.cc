#include "zone/store/progress.h"

#include <fmt/format.h>
#include <unistd.h>

namespace bulkhead::zone {
namespace {

constexpr Nanoseconds kPatience = 1'000'000'000;
constexpr Nanoseconds kBetweenUpdates = 250'000'000;

void put(std::string_view text) { (void)!::write(STDERR_FILENO, text.data(), text.size()); }

}  // namespace

Progress::Progress(Show show)
    : shown_allowed_{show == Show::kIfTerminal && ::isatty(STDOUT_FILENO) == 1 && ::isatty(STDERR_FILENO) == 1} {}

void Progress::begin(std::string what) {
  done();
  what_ = std::move(what);
  started_ = clock_.now();
}

void Progress::tick() {
  if (!shown_allowed_ || what_.empty()) return;
  const Nanoseconds now = clock_.now();
  if (now - started_ < kPatience || now - last_ < kBetweenUpdates) return;
  last_ = now;
  on_screen_ = true;
  put(fmt::format("\r\033[Kbulkhead: {} ({} s)", what_, (now - started_) / 1'000'000'000));
}

void Progress::done() {
  if (on_screen_) put("\r\033[K");
  on_screen_ = false;
  what_.clear();
}

}  // namespace bulkhead::zone
