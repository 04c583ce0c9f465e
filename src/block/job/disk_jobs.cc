#include "block/job/disk_jobs.h"

#include <algorithm>

#include "block/job/backup_job.h"
#include "block/job/chain.h"
#include "block/job/commit_job.h"
#include "block/job/mirror_job.h"
#include "block/job/stream_job.h"

namespace bulkhead::block {

namespace {

constexpr unsigned kChunkBits = 16;

bool has_target(const JobRequest& request) {
  return request.kind == JobKind::kMirror || request.kind == JobKind::kBackup;
}

Result<void> judge(const JobRequest& request, const Disk& disk) {
  if (has_target(request) && request.target.empty()) return fail("a {} needs a target", name_of(request.kind));
  if (!request.bitmap.empty() && (request.kind != JobKind::kBackup || request.sync != JobSync::kFull))
    return fail("a bitmap is for a backup, and says itself what is copied");
  if (request.sync == JobSync::kNone && (request.kind != JobKind::kBackup || request.existing))
    return fail("sync=none is for a backup into a new image");
  if (disk.read_only() && (request.kind == JobKind::kCommit || request.kind == JobKind::kStream))
    return fail("the disk is read-only; its images can be mirrored or backed up");
  return {};
}

}  // namespace

DiskJobs::~DiskJobs() {
  disk_.executor().run([this] {
    on_change_ = {};
    for (const auto& job : jobs_) job->cancel();
  });
  for (std::size_t i = 0; i < jobs_.size(); ++i) disk_.executor().run(jobs_[i]->wait_concluded());
  disk_.executor().run([this] { jobs_.clear(); });
}

void DiskJobs::set_on_change(Job::OnChange on_change) {
  disk_.executor().run([&] { on_change_ = std::move(on_change); });
}

std::unique_ptr<Job> DiskJobs::make(JobRequest request) {
  switch (request.kind) {
    case JobKind::kBackup:
      return std::make_unique<BackupJob>(disk_, std::move(request), kChunkBits);
    case JobKind::kStream:
      return std::make_unique<StreamJob>(disk_, std::move(request), kChunkBits);
    case JobKind::kCommit:
      if (!request.top.empty()) return std::make_unique<CommitJob>(disk_, std::move(request), kChunkBits);
      break;
    case JobKind::kMirror:
      break;
  }
  return std::make_unique<MirrorJob>(disk_, std::move(request), kChunkBits);
}

Result<std::string> DiskJobs::start(JobRequest request) {
  BH_TRY(judge(request, disk_));
  Result<TargetShape> shape;
  disk_.executor().run([&] {
    for (const auto& job : jobs_)
      if (!job->concluded()) shape = fail("the job '{}' works on this disk; cancel it, or wait for its end", job->id());
    if (!shape) return;
    if (request.id.empty()) request.id = fmt::format("{}{}", name_of(request.kind), count_++);
    if (find(request.id) != nullptr)
      shape = fail("there is a job '{}' already; dismiss it, or name another", request.id);
    if (!shape || !has_target(request)) return;
    shape = target_shape(request, *disk_.root());
    if (request.existing) return;
    const Result<void> secret = judge_secrecy(request, disk_.root().get(), not_copied(request, *disk_.root()), nullptr);
    if (!secret) shape = std::unexpected(secret.error());
  });
  if (!shape) return std::unexpected(shape.error());
  if (has_target(request)) BH_TRY(make_target(request, *shape));
  const std::string id = request.id;
  std::unique_ptr<Job> job = make(std::move(request));
  Job& one = *job;
  const Result<void> prepared = disk_.executor().run(one.prepare());
  disk_.executor().run([&] {
    if (!prepared) return job.reset();
    jobs_.push_back(std::move(job));
    const auto ended = [](const auto& other) { return other->concluded(); };
    if (static_cast<std::size_t>(std::ranges::count_if(jobs_, ended)) > kMostEnded)
      jobs_.erase(std::ranges::find_if(jobs_, ended));
    one.start([this](const JobStatus& status) {
      if (on_change_) on_change_(status);
    });
  });
  if (!prepared) return std::unexpected(prepared.error());
  return id;
}

std::vector<JobStatus> DiskJobs::list() const {
  std::vector<JobStatus> out;
  disk_.executor().run([&] {
    for (const auto& job : jobs_) out.push_back(job->status());
  });
  return out;
}

Job* DiskJobs::find(const std::string& id) const {
  const auto found = std::ranges::find(jobs_, id, [](const auto& job) { return job->id(); });
  return found == jobs_.end() ? nullptr : found->get();
}

Result<void> DiskJobs::on(const std::string& id, const std::function<Result<void>(Job&)>& what) {
  Result<void> result;
  disk_.executor().run([&] {
    Job* const job = find(id);
    result = job == nullptr ? fail("there is no job '{}'", id) : what(*job);
  });
  return result;
}

Result<void> DiskJobs::pause(const std::string& id) {
  return on(id, [](Job& job) { return job.pause(); });
}
Result<void> DiskJobs::resume(const std::string& id) {
  return on(id, [](Job& job) { return job.resume(); });
}
Result<void> DiskJobs::complete(const std::string& id) {
  return on(id, [](Job& job) { return job.complete(); });
}
Result<void> DiskJobs::cancel(const std::string& id) {
  return on(id, [](Job& job) -> Result<void> {
    job.cancel();
    return {};
  });
}
Result<void> DiskJobs::set_speed(const std::string& id, u64 bytes_per_second) {
  return on(id, [&](Job& job) -> Result<void> {
    job.set_speed(bytes_per_second);
    return {};
  });
}

Result<void> DiskJobs::dismiss(const std::string& id) {
  return on(id, [&](Job& job) -> Result<void> {
    if (!job.concluded()) return fail("the job '{}' has not ended; cancel it first", id);
    std::erase_if(jobs_, [&](const auto& one) { return one.get() == &job; });
    return {};
  });
}

}  // namespace bulkhead::block
