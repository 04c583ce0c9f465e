// The jobs of one disk: one at a time, and those that have ended until they are dismissed.
#pragma once
#include <functional>
#include <memory>

#include "block/job/job.h"

namespace bulkhead::block {

class DiskJobs {
 public:
  static constexpr std::size_t kMostEnded = 16;  // are remembered

  // `disk` outlives us.
  explicit DiskJobs(Disk& disk) : disk_{disk} {}
  // Cancels what runs, and waits until the disk is as without it.
  ~DiskJobs();
  DiskJobs(const DiskJobs&) = delete;
  DiskJobs& operator=(const DiskJobs&) = delete;

  // --- any thread but the disk's, one at a time. None waits for a guest's requests.
  // Called on the disk's thread when a job gets ready, is stopped by an error, takes over the disk, or ends.
  void set_on_change(Job::OnChange on_change);
  // The job's id. Errors: another runs; what the request asks cannot be done.
  Result<std::string> start(JobRequest request);
  std::vector<JobStatus> list() const;
  Result<void> pause(const std::string& id);
  Result<void> resume(const std::string& id);
  Result<void> cancel(const std::string& id);
  Result<void> complete(const std::string& id);
  Result<void> set_speed(const std::string& id, u64 bytes_per_second);
  Result<void> dismiss(const std::string& id);

 private:
  Job* find(const std::string& id) const;
  Result<void> on(const std::string& id, const std::function<Result<void>(Job&)>& what);
  std::unique_ptr<Job> make(JobRequest request);
  Disk& disk_;
  Job::OnChange on_change_;
  std::vector<std::unique_ptr<Job>> jobs_;  // the executor's
  unsigned count_ = 0;
};

}  // namespace bulkhead::block
