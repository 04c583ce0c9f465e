// The guest's console as evidence: the last lines for a failure report, and noticing that the kernel panicked.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ints.h"
#include "base/sync.h"
#include "device/console_backend.h"
#include "zone/session/wake.h"

namespace bulkhead::zone {

// Any thread. Keeps kKeptLines lines of at most kLineLength bytes, whatever comes.
class ConsoleLog {
 public:
  static constexpr std::size_t kKeptLines = 40;
  static constexpr std::size_t kLineLength = 400;

  explicit ConsoleLog(Wake& wake) : wake_{wake} {}
  void feed(std::span<const std::byte> data);  // notifies `wake` when a panic is first seen
  std::optional<Nanoseconds> first_byte_at() const;
  std::string panic() const;                                     // the panic's line, printable; empty: none seen
  void forget_panic();                                           // a new kernel starts
  std::vector<std::string> last_lines(std::size_t count) const;  // printable, the unfinished one included

 private:
  void end_line() BH_REQUIRES(mutex_);
  Wake& wake_;
  HostClock clock_;
  mutable Mutex mutex_;
  std::optional<Nanoseconds> first_ BH_GUARDED_BY(mutex_);
  std::string line_ BH_GUARDED_BY(mutex_);
  std::vector<std::string> lines_ BH_GUARDED_BY(mutex_);  // a ring: next_ is the oldest once it is full
  std::size_t next_ BH_GUARDED_BY(mutex_) = 0;
  std::string panic_ BH_GUARDED_BY(mutex_);
};

// A console nobody types into: all output goes into the log.
class LoggedConsole final : public device::ConsoleBackend {
 public:
  explicit LoggedConsole(ConsoleLog& log) : log_{log} {}
  std::size_t write(std::span<const std::byte> data) override {
    log_.feed(data);
    return data.size();
  }
  std::size_t read(std::span<std::byte>) override { return 0; }
  void set_callbacks(std::function<void()>, std::function<void()>) override {}

 private:
  ConsoleLog& log_;
};

}  // namespace bulkhead::zone
