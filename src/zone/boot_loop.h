// The loop of a bare kernel: its consoles on our stdio, signals, requests, and noticing a panic that halts.
#pragma once
#include <atomic>
#include <functional>
#include <optional>

#include "zone/report.h"
#include "zone/session/console_hub.h"
#include "zone/session/host_stream.h"
#include "zone/store/tool.h"
#include "zone/zone_hands.h"

namespace bulkhead::zone {

class BootLoop final : public ZoneHands {
 public:
  BootLoop(ConsoleHub& hub, ConsoleLog& log, Wake& wake, Workshop& workshop, Milestones& milestones);

  // From the machine's thread.
  void machine_finished(machine::Outcome outcome);
  // One run of the machine, which another thread runs: returns its outcome when it has finished. `serve_requests` is
  // called whenever the wake was notified, and may call our hands.
  machine::Outcome run(machine::Machine& machine, const std::function<void()>& serve_requests);
  // All output to stdout, as long as somebody takes it.
  void drain();

  enum class Why : u8 { kMachineEnded, kSignal, kPanic, kUser, kNobodyListens, kTold, kKilled };
  Why why() const { return why_; }  // the last run() was ended
  // Somebody asked it to end, so a reset is the end too.
  bool told_to_end() const { return end_deadline_.has_value(); }

  // ---- ZoneHands: through the guest's kernel.
  Result<void> ask_to_end(Nanoseconds patience) override;
  void kill() override { stop(Why::kKilled); }
  Result<void> may_reboot() const override { return {}; }

 private:
  void step();
  void look_at_deadlines();
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
  machine::Machine* machine_ = nullptr;
  std::atomic<bool> finished_ = false;
  machine::Outcome outcome_;
  std::optional<Nanoseconds> panic_deadline_, end_deadline_;
  bool asked_ = false;  // the guest's kernel to power off
  bool stopped_ = false, escaped_ = false;
  Why why_ = Why::kMachineEnded;
};

}  // namespace bulkhead::zone
