// The loop of a bare kernel: its consoles on our stdio, signals, and noticing a panic that halts.
#pragma once
#include <atomic>
#include <functional>
#include <optional>

#include "zone/report.h"
#include "zone/session/console_hub.h"
#include "zone/session/host_stream.h"
#include "zone/store/tool.h"

namespace bulkhead::zone {

class BootLoop {
 public:
  BootLoop(ConsoleHub& hub, ConsoleLog& log, Wake& wake, Workshop& workshop, Milestones& milestones);

  // From the machine's thread.
  void machine_finished(machine::Outcome outcome);
  // One run of the machine: returns its outcome when it has finished. `stop_machine` is called at most once.
  machine::Outcome run(const std::function<void()>& stop_machine);
  // All output to stdout, as long as somebody takes it.
  void drain();

  enum class Why : u8 { kMachineEnded, kSignal, kPanic, kUser, kNobodyListens };
  Why why() const { return why_; }  // the last run() was ended

 private:
  void step();
  void stop(Why why);
  void pump_input();
  void pump_output();
  bool escape(std::span<std::byte> bytes, std::size_t& kept);
  void handle_signals();

  ConsoleHub& hub_;
  ConsoleLog& log_;
  Wake& wake_;
  Workshop& workshop_;
  Milestones& milestones_;
  HostClock clock_;
  HostStream input_, output_;
  const std::function<void()>* stop_machine_ = nullptr;
  std::atomic<bool> finished_ = false;
  machine::Outcome outcome_;
  std::optional<Nanoseconds> panic_deadline_;
  bool stopped_ = false, escaped_ = false;
  Why why_ = Why::kMachineEnded;
};

}  // namespace bulkhead::zone
