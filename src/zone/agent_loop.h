// The loop of a zone that runs a command: joins the agent's session to our stdin, stdout and stderr, obeys the signals
// that are sent to us, watches the deadlines, and decides what our exit status is. Runs on one thread; the machine runs
// on others and is only told to stop.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "zone/report.h"
#include "zone/session/agent_port.h"
#include "zone/session/console_log.h"
#include "zone/session/host_stream.h"
#include "zone/store/tool.h"
#include "zone/zone_hands.h"

namespace bulkhead::zone {

struct AgentLoopConfig {
  std::string start_request;  // encoded
  std::string command_name;   // for messages
  bool terminal = false;      // pass window sizes on
  Nanoseconds boot_timeout = 60'000'000'000;
};

class AgentLoop final : public ZoneHands {
 public:
  struct Result {
    int exit_status = 125;
    std::string error;           // one line; empty when all went as it should
    bool console_tells = false;  // the guest's last console lines would help
    bool by_force = false;       // it was asked to end and did not
  };

  // All outlive the loop. `workshop.signals` must be there. `stop_machine` is called at most once.
  // `serve_requests` is called whenever the wake was notified, and may call our hands.
  AgentLoop(AgentLoopConfig config, AgentPort& port, ConsoleLog& console, Wake& wake, Workshop& workshop,
            Milestones& milestones, std::function<void()> stop_machine, std::function<void()> serve_requests);

  // From the machine's thread: it runs no more.
  void machine_finished(machine::Outcome outcome);
  // Returns when the machine has finished and all output is passed on.
  Result run();

  // ---- ZoneHands: as when a signal is sent to us.
  bulkhead::Result<void> ask_to_end(Nanoseconds patience) override;
  void kill() override;
  bulkhead::Result<void> may_reboot() const override;

 private:
  void step();
  void look_at_session();
  void look_at_console();
  void look_at_deadlines();
  void wait_for_events();
  void handle_signals();
  void pump_input();
  void pump_output(agent::Stream stream, HostStream& to);
  bool output_waits();
  void give_up(std::string why, bool console_tells);
  void stop();
  bool finished() const { return finished_.load(std::memory_order_acquire); }
  Result conclude();
  std::string outcome_text() const;

  AgentLoopConfig config_;
  AgentPort& port_;
  ConsoleLog& console_;
  Wake& wake_;
  Workshop& workshop_;
  Milestones& milestones_;
  std::function<void()> stop_machine_, serve_requests_;
  HostClock clock_;
  HostStream input_, output_, error_;

  std::atomic<bool> finished_ = false;
  machine::Outcome outcome_;  // written before finished_
  Nanoseconds began_ = 0;
  std::optional<Nanoseconds> panic_deadline_, grace_deadline_;
  std::optional<Ending> ending_;
  std::string failure_;
  bool console_tells_ = false;
  bool started_ = false, input_done_ = false, stopped_ = false, hurry_ = false;
  bool by_force_ = false;
  int told_ = 0;               // the signal that our end is to look like, when it was asked for from outside
  bool input_wanted_ = false;  // there is credit for more input
  std::array<bool, 2> waits_ = {false, false};
};

}  // namespace bulkhead::zone
