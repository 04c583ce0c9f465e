// What ZoneControl does with disks that run: jobs, limits, and requests that wait for an error's end.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "zone/live/job_arguments.h"
#include "zone/zone_control.h"

namespace bulkhead::zone {

using Json = nlohmann::ordered_json;
using block::JobStatus;

block::Disk* ZoneControl::find_disk(const std::string& device) const {
  const auto& disks = life_->parts.config.disks;
  for (std::size_t i = 0; i < disks.size(); ++i)
    if (disks[i] != nullptr && disk_name(backend_, i) == device) return disks[i];
  return nullptr;
}

std::string ZoneControl::device_of(const block::Disk* disk) const {
  const auto& disks = life_->parts.config.disks;
  const auto found = std::ranges::find(disks, disk);
  return found == disks.end() ? "" : disk_name(backend_, static_cast<std::size_t>(found - disks.begin()));
}

block::DiskJobs* ZoneControl::jobs_of(block::Disk& disk) {
  auto& jobs = life_->parts.jobs[&disk];
  if (jobs == nullptr) {
    jobs = std::make_unique<block::DiskJobs>(disk);
    jobs->set_on_change(
        [this, disk = &disk](const JobStatus& status) { post([this, disk, status] { job_changed(disk, status); }); });
  }
  return jobs.get();
}

void ZoneControl::job_changed(const block::Disk* disk, const JobStatus& status) {
  const std::string device = device_of(disk);
  if (device.empty()) return;
  MachineParts& parts = life_->parts;
  if (status.pivoted) {
    const auto index = std::ranges::find(parts.config.disks, disk) - parts.config.disks.begin();
    parts.files[static_cast<std::size_t>(index)].path = status.file;
  }
  if (status.state == block::JobState::kStopped)
    log_warning("the job '{}' of {} has stopped: {}; bulkhead zone job resume goes on with it", status.id, device,
                status.last_error);
  if (status.state == block::JobState::kConcluded && status.failed)
    log_warning("the job '{}' of {} has failed: {}", status.id, device, status.last_error);
}

void ZoneControl::watch(block::Disk& disk) {
  disk.set_on_wait([this, disk = &disk](block::IoStatus why) {
    post([this, disk, why] {
      const std::string device = device_of(disk);
      if (device.empty() || why == block::IoStatus::kOk) return;
      log_warning("the disk {} waits: {}; it is tried again each second, or at once by bulkhead zone disk-resume",
                  device, text_of(why));
    });
  });
}

void ZoneControl::start_job(const Request& request, const AnswerPtr& answer) {
  block::Disk* const disk = find_disk(request.device);
  if (disk == nullptr) return answer->refuse(fmt::format("the zone has no disk '{}'", request.device));
  block::JobRequest job = request.job;
  const Json known = Json::parse(list_jobs());
  const auto taken = [&](const std::string& id) {
    return std::ranges::any_of(known, [&](const Json& one) { return one["id"] == id; });
  };
  if (!job.id.empty() && taken(job.id))
    return answer->refuse(fmt::format("there is a job '{}' already; dismiss it, or name another", job.id));
  while (job.id.empty() || taken(job.id)) job.id = fmt::format("{}{}", block::name_of(job.kind), jobs_made_++);
  const auto started = jobs_of(*disk)->start(std::move(job));
  if (!started) return answer->refuse(started.error().message);
  answer->give(Json{{"id", *started}}.dump());
}

std::string ZoneControl::list_jobs() const {
  Json out = Json::array();
  for (const auto& [disk, jobs] : life_->parts.jobs)
    for (const JobStatus& status : jobs->list()) out.push_back(job_json(status, device_of(disk)));
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void ZoneControl::change_job(const Request& request, const AnswerPtr& answer) {
  for (const auto& [disk, jobs] : life_->parts.jobs) {
    const std::vector<JobStatus> list = jobs->list();
    if (std::ranges::find(list, request.id, &JobStatus::id) == list.end()) continue;
    const Result<void> done = request.action == "pause"      ? jobs->pause(request.id)
                              : request.action == "resume"   ? jobs->resume(request.id)
                              : request.action == "cancel"   ? jobs->cancel(request.id)
                              : request.action == "complete" ? jobs->complete(request.id)
                              : request.action == "dismiss"  ? jobs->dismiss(request.id)
                                                             : jobs->set_speed(request.id, request.speed);
    if (!done) return answer->refuse(done.error().message);
    return answer->give("{}");
  }
  answer->refuse(fmt::format("the zone has no job '{}'", request.id));
}

void ZoneControl::limit_disk(const Request& request, const AnswerPtr& answer) {
  block::Disk* const disk = find_disk(request.device);
  if (disk == nullptr) return answer->refuse(fmt::format("the zone has no disk '{}'", request.device));
  const auto limits = block::parse_limits(request.options);
  if (!limits) return answer->refuse(limits.error().message);
  disk->set_limits(*limits);
  answer->give("{}");
}

void ZoneControl::resume_disk(const Request& request, const AnswerPtr& answer) {
  block::Disk* const disk = find_disk(request.device);
  if (disk == nullptr) return answer->refuse(fmt::format("the zone has no disk '{}'", request.device));
  disk->retry_now();
  answer->give("{}");
}

}  // namespace bulkhead::zone
