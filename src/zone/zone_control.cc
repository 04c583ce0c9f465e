#include "zone/zone_control.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/log.h"

namespace bulkhead::zone {
namespace {

using Json = nlohmann::ordered_json;
using Verb = Request::Verb;

constexpr Nanoseconds kSecond = 1'000'000'000;

std::string text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char buffer[32];
  return {buffer, std::strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace

std::string disk_name(std::string_view backend, std::size_t index) {
  return fmt::format("{}{}", backend == "pv" ? "xvd" : "vd", static_cast<char>('a' + index));
}

ZoneControl::ZoneControl(const MachineSpec& spec, const Report& report, std::string what, Wake& wake)
    : name_{spec.named ? spec.name : fmt::format("zone-{}", ::getpid())},
      what_{std::move(what)},
      backend_{report.backend},
      engine_{report.engine},
      since_{utc_now()},
      wake_{wake} {}

Result<std::unique_ptr<ZoneControl>> ZoneControl::open(const MachineSpec& spec, const Report& report, std::string what,
                                                       Wake& wake) {
  std::unique_ptr<ZoneControl> control{new ZoneControl{spec, report, std::move(what), wake}};
  BH_TRY(control->take_name(spec));
  return control;
}

Result<void> ZoneControl::take_name(const MachineSpec& spec) {
  const std::string folder = socket_folder(), wanted = name_;
  for (unsigned tries = 1;; ++tries) {
    auto place = SocketPlace::take(folder, name_);
    if (!place) {
      log_warning("the zone has no control socket: {}", place.error().message);
      return {};
    }
    if (*place) {
      socket_ = std::make_unique<ControlSocket>(
          std::move(**place), [this](const Request& request, const AnswerPtr& answer) { handle(request, answer); });
      return {};
    }
    if (spec.named)
      return fail("--name {}: a zone of that name is running; `bulkhead zone stop {}` ends it, or choose another name",
                  name_, name_);
    name_ = fmt::format("{}-{}", wanted, tries);  // our process's number means something else next door
  }
}

ZoneControl::~ZoneControl() {
  if (socket_ == nullptr) return;
  socket_->free_name();
  std::vector<AnswerPtr> waiting;
  std::vector<Task> tasks;
  {
    const Lock lock{mutex_};
    state_ = State::kEnded;
    waiting.swap(waiting_);
    tasks.swap(tasks_);
  }
  tasks.clear();  // what was asked too late is answered by its answer's end
  for (const AnswerPtr& answer : waiting) answer->give(text({{"ended", true}, {"by_force", by_force_}}));
  waiting.clear();
  socket_.reset();
}

void ZoneControl::attach(machine::Machine& machine, MachineParts& parts, const Report& report, ZoneHands& hands) {
  life_.emplace(Life{machine, parts, report, hands});
  ++lives_;
  for (block::Disk* const disk : parts.config.disks)
    if (disk != nullptr) watch(*disk);
  machine.set_disk_gone(
      [this, life = lives_](block::Disk& disk) { post([this, gone = &disk, life] { disk_gone(gone, life); }); });
  const Lock lock{mutex_};
  state_ = State::kRunning;
}

void ZoneControl::detach() {
  if (!life_) return;
  serve();
  life_->machine.set_disk_gone({});
  for (block::Disk* const disk : life_->parts.config.disks)
    if (disk != nullptr) disk->set_on_wait({});
  life_.reset();
}

void ZoneControl::post(Task task) {
  {
    const Lock lock{mutex_};
    tasks_.push_back(std::move(task));
  }
  wake_.notify();
}

void ZoneControl::serve() {
  if (!life_) return;
  std::vector<Task> tasks;
  {
    const Lock lock{mutex_};
    tasks.swap(tasks_);
  }
  for (const Task& task : tasks) task();
}

std::string ZoneControl::summary(State state) const {
  return text({{"name", name_},
               {"pid", ::getpid()},
               {"virt_backend", backend_},
               {"engine", engine_},
               {"since", since_},
               {"state", state == State::kRunning ? "running" : "preparing"},
               {"what", what_}});
}

void ZoneControl::handle(const Request& request, const AnswerPtr& answer) {
  Lock lock{mutex_};
  if (state_ == State::kEnded) return answer->refuse("the zone has ended");
  if (request.verb == Verb::kQuery) return answer->give(summary(state_));
  if (state_ == State::kRunning) {
    tasks_.push_back([this, request, answer] { execute(request, answer); });
    return wake_.notify();
  }
  if (request.verb != Verb::kStop && request.verb != Verb::kKill)
    return answer->refuse(fmt::format("the zone '{}' is still being prepared; try again when it runs", name_));
  // The tools that prepare it end as when somebody types ^C.
  waiting_.push_back(answer);
  ::kill(::getpid(), SIGTERM);
}

void ZoneControl::execute(const Request& request, const AnswerPtr& answer) {
  switch (request.verb) {
    case Verb::kQuery:
      break;  // answered by handle()
    case Verb::kInspect:
      return answer->give(inspect());
    case Verb::kDiskAdd:
      return add_disk(request, answer);
    case Verb::kDiskRemove:
      return remove_disk(request, answer);
    case Verb::kDiskLimit:
      return limit_disk(request, answer);
    case Verb::kDiskResume:
      return resume_disk(request, answer);
    case Verb::kJobStart:
      return start_job(request, answer);
    case Verb::kJobList:
      return answer->give(list_jobs());
    case Verb::kJobChange:
      return change_job(request, answer);
    case Verb::kStop:
      return stop(request, answer);
    case Verb::kReboot:
      return reboot(answer);
    case Verb::kKill: {
      {
        const Lock lock{mutex_};
        waiting_.push_back(answer);
      }
      return life_->hands.kill();
    }
  }
}

std::string ZoneControl::inspect() const {
  Report report = life_->report;
  take_statistics(life_->machine, report);
  Json out = Json::parse(report_json(report, -1));
  for (const char* const later : {"exit_status", "error"}) out.erase(later);
  out["name"] = name_;
  out["pid"] = ::getpid();
  out["since"] = since_;
  out["what"] = what_;
  Json devices = Json::array(), disks = Json::array();
  for (const machine::DeviceStatus& device : life_->machine.devices())
    devices.push_back({{"kind", device.kind},
                       {"name", device.name},
                       {"state", device.state},
                       {"unplugging", device.unplugging},
                       {"problem", device.problem.empty() ? Json(nullptr) : Json(device.problem)}});
  const MachineParts& parts = life_->parts;
  for (std::size_t i = 0; i < parts.config.disks.size(); ++i)
    if (parts.config.disks[i] != nullptr)
      disks.push_back({{"name", disk_name(backend_, i)},
                       {"file", parts.files[i].path},
                       {"read_only", parts.files[i].read_only},
                       {"waits_for", parts.config.disks[i]->waits_for() == block::IoStatus::kOk
                                         ? Json(nullptr)
                                         : Json(block::text_of(parts.config.disks[i]->waits_for()))}});
  out["devices"] = std::move(devices);
  out["disks"] = std::move(disks);
  out["jobs"] = Json::parse(list_jobs());
  return text(out);
}

void ZoneControl::add_disk(const Request& request, const AnswerPtr& answer) {
  DiskSpec spec{.path = request.file, .read_only = request.read_only};
  if (const auto understood = block::parse_disk_options(spec, request.options); !understood)
    return answer->refuse(understood.error().message);
  auto opened = block::open_disk(spec);
  if (!opened) return answer->refuse(opened.error().message);
  const auto plugged = life_->machine.add_disk(**opened);
  if (!plugged) return answer->refuse(plugged.error().message);
  MachineParts& parts = life_->parts;
  const std::size_t size = std::max<std::size_t>(parts.config.disks.size(), plugged->index + 1);
  parts.config.disks.resize(size);
  parts.files.resize(size);
  parts.config.disks[plugged->index] = opened->get();
  parts.files[plugged->index] = spec;
  watch(**opened);
  parts.disks.push_back(std::move(*opened));
  answer->give(text({{"device", plugged->name}}));
}

void ZoneControl::remove_disk(const Request& request, const AnswerPtr& answer) {
  // Kernels let go of a disk that is mounted, and everything on it begins to fail.
  if (life_->parts.has_root && !request.force && request.device == disk_name(backend_, 0))
    return answer->refuse(fmt::format("{} is the zone's root; --force takes it away nevertheless", request.device));
  const auto how = request.force ? machine::DiskRemoval::kForce : machine::DiskRemoval::kAsk;
  const auto begun = life_->machine.remove_disk(
      request.device, how, [this, name = request.device, life = lives_, answer](machine::DiskRemoved result) {
        post([this, result, name, life, answer] { disk_removed(result, name, life, answer); });
      });
  if (!begun) answer->refuse(begun.error().message);
}

void ZoneControl::disk_removed(machine::DiskRemoved how, const std::string& name, u64 life, const AnswerPtr& answer) {
  if (life != lives_) return answer->refuse("the zone started over meanwhile, with its disk");
  if (how == machine::DiskRemoved::kKept)
    return answer->refuse(fmt::format(
        "the guest does not let go of {}: is it mounted? It is removed when the guest lets go; --force takes it away",
        name));
  answer->give(text({{"device", name}, {"by_force", how == machine::DiskRemoved::kForced}}));
}

// A machine that came later was made with the disk, and has it still.
void ZoneControl::disk_gone(const block::Disk* disk, u64 life) {
  if (life != lives_) return;
  MachineParts& parts = life_->parts;
  parts.jobs.erase(const_cast<block::Disk*>(disk));
  std::ranges::replace(parts.config.disks, const_cast<block::Disk*>(disk), nullptr);
  std::erase_if(parts.disks, [&](const auto& one) { return one.get() == disk; });
}

void ZoneControl::stop(const Request& request, const AnswerPtr& answer) {
  if (const auto asked = life_->hands.ask_to_end(request.timeout_s * kSecond); !asked)
    return answer->refuse(asked.error().message);
  const Lock lock{mutex_};
  waiting_.push_back(answer);
}

void ZoneControl::reboot(const AnswerPtr& answer) {
  if (const auto may = life_->hands.may_reboot(); !may) return answer->refuse(may.error().message);
  const auto asked = life_->machine.request_shutdown(machine::ShutdownRequest::kReboot);
  if (!asked) return answer->refuse(asked.error().message);
  if (*asked == machine::Asked::kNobodyListens)
    return answer->refuse("the guest's kernel does not listen for such requests, or not yet");
  answer->give("{}");
}

}  // namespace bulkhead::zone
