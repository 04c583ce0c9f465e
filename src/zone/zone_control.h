// A zone while it runs, for those outside: its name, its control socket, and what requests do to it.
// Requests come in on the socket's thread and are done on the loop's, which calls serve() whenever the Wake says so;
// only what needs no machine is done at once. Nothing here waits for a client or for the guest.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/sync.h"
#include "zone/live/control_socket.h"
#include "zone/machine_parts.h"
#include "zone/session/wake.h"
#include "zone/zone_hands.h"

namespace bulkhead::zone {

// As the guest's kernel names the disk in that place.
std::string disk_name(std::string_view backend, std::size_t index);

class ZoneControl {
 public:
  // Takes the zone's name: the spec's if it was asked for, else one that no other has ("zone-PID"). `what`: what runs,
  // for lists. `report` must know backend and engine. Errors: a zone that runs has the name. Where the socket cannot be
  // made the zone runs without one, and we say so.
  static Result<std::unique_ptr<ZoneControl>> open(const MachineSpec& spec, const Report& report, std::string what,
                                                   Wake& wake);
  // Frees the name, then tells those who wait for the end.
  ~ZoneControl();
  ZoneControl(const ZoneControl&) = delete;
  ZoneControl& operator=(const ZoneControl&) = delete;

  // ---- The loop's thread.
  // From here to detach() requests are served; once for each life of the machine. All outlive detach().
  void attach(machine::Machine& machine, MachineParts& parts, const Report& report, ZoneHands& hands);
  void serve();
  void detach();
  // The zone ended on its own, or by `force` because its time to end was over.
  void ended(bool by_force) { by_force_ = by_force; }

 private:
  enum class State : u8 { kPreparing, kRunning, kEnded };
  using Task = std::function<void()>;
  struct Life {
    machine::Machine& machine;
    MachineParts& parts;
    const Report& report;
    ZoneHands& hands;
  };

  ZoneControl(const MachineSpec& spec, const Report& report, std::string what, Wake& wake);
  Result<void> take_name(const MachineSpec& spec);
  // The socket's thread.
  void handle(const Request& request, const AnswerPtr& answer);
  std::string summary(State state) const;
  // Any thread.
  void post(Task task);
  // The loop's.
  void execute(const Request& request, const AnswerPtr& answer);
  std::string inspect() const;
  void add_disk(const Request& request, const AnswerPtr& answer);
  void remove_disk(const Request& request, const AnswerPtr& answer);
  void disk_removed(machine::DiskRemoved how, const std::string& name, u64 life, const AnswerPtr& answer);
  void disk_gone(const block::Disk* disk, u64 life);
  // zone_jobs.cc
  void start_job(const Request& request, const AnswerPtr& answer);
  void change_job(const Request& request, const AnswerPtr& answer);
  std::string list_jobs() const;
  void limit_disk(const Request& request, const AnswerPtr& answer);
  void resume_disk(const Request& request, const AnswerPtr& answer);
  block::Disk* find_disk(const std::string& device) const;
  std::string device_of(const block::Disk* disk) const;
  block::DiskJobs* jobs_of(block::Disk& disk);
  void job_changed(const block::Disk* disk, const block::JobStatus& status);
  void watch(block::Disk& disk);
  void stop(const Request& request, const AnswerPtr& answer);
  void reboot(const AnswerPtr& answer);

  std::string name_;
  const std::string what_, backend_, engine_, since_;
  Wake& wake_;
  std::optional<Life> life_;
  u64 lives_ = 0;
  unsigned jobs_made_ = 0;
  bool by_force_ = false;
  Mutex mutex_;
  State state_ BH_GUARDED_BY(mutex_) = State::kPreparing;
  std::vector<Task> tasks_ BH_GUARDED_BY(mutex_);
  std::vector<AnswerPtr> waiting_ BH_GUARDED_BY(mutex_);  // for the end
  std::unique_ptr<ControlSocket> socket_;
};

}  // namespace bulkhead::zone
