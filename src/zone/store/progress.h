// One line on stderr that says what is taking long, for a person who waits at a terminal. Nothing is printed in the
// first second, nor when stdout or stderr is not a terminal. One thread at a time.
#pragma once
#include <string>

#include "base/clock.h"

namespace bulkhead::zone {

class Progress {
 public:
  enum class Show : u8 { kIfTerminal, kNever };
  explicit Progress(Show show = Show::kIfTerminal);
  ~Progress() { done(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin(std::string what);  // "making the Debian root file system"
  void tick();                   // call a few times a second while it lasts
  void done();                   // clears the line

 private:
  bool shown_allowed_;
  HostClock clock_;
  Nanoseconds started_ = 0, last_ = 0;
  bool on_screen_ = false;
  std::string what_;
};

}  // namespace bulkhead::zone
