// One job's life: begun, paced, paused, stopped by errors, completed or cancelled. The work itself is in derived
// classes. All on the disk's executor.
#pragma once
#include <functional>

#include "block/disk/disk.h"
#include "block/job/job_types.h"

namespace bulkhead::block {

class Job {
 public:
  using OnChange = std::function<void(const JobStatus&)>;
  Job(Disk& disk, JobRequest request);
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // Opens what it needs; without waiting for the disk's requests. Errors: the job cannot be begun.
  virtual Task<Result<void>> prepare() = 0;
  // After prepare(). `on_change` hears of ready, stopped and concluded.
  void start(OnChange on_change);

  const std::string& id() const { return request_.id; }
  JobStatus status() const;
  bool concluded() const { return concluded_; }
  // Errors: what does not go with the state that it is in.
  Result<void> pause();
  Result<void> resume();  // also after an error stopped it
  Result<void> complete();
  void cancel();  // at once, or when what is in flight has ended
  void set_speed(u64 bytes_per_second);
  Task<void> wait_concluded();

 protected:
  // The whole of it; takes away whatever it put into the graph. The message is for people.
  virtual Task<Result<void>> work() = 0;
  virtual u64 done_bytes() const = 0;
  virtual u64 total_bytes() const = 0;
  virtual std::string_view file() const { return {}; }
  virtual bool must_be_completed() const { return false; }
  virtual void woken() {}  // pause, resume, complete, cancel: whoever waits may look again

  Disk& disk() const { return disk_; }
  Executor& executor() const { return disk_.executor(); }
  const JobRequest& request() const { return request_; }
  bool ended() const { return cancelled_ || failed_; }
  bool halted() const { return paused_ || stopped_; }
  bool complete_wanted() const { return complete_wanted_; }
  void set_ready();
  void set_completing() { completing_ = true; }
  void set_pivoted();  // the disk is another file from now on; it is paused
  // Waits while halted or too fast. False: it has ended.
  Task<bool> may_go();
  void took(u64 bytes) { bucket_.take(bytes); }
  // As the request says of errors there.
  void error(std::string text, bool at_target);
  void fail_with(std::string text);
  Error why() const { return {cancelled_ ? "it was cancelled" : last_error_}; }  // what work() answers if ended()
  // Until something changes that may_go() or a wait of the job's own looks at.
  auto wait_event() { return events_.wait(); }
  void wake() { events_.wake_all(); }

 private:
  Task<void> live();
  void tell() {
    if (on_change_) on_change_(status());
  }
  Disk& disk_;
  JobRequest request_;
  OnChange on_change_;
  TokenBucket bucket_;
  WaitList events_, ends_;
  u64 errors_ = 0;
  std::string last_error_;
  bool paused_ = false, stopped_ = false, cancelled_ = false, failed_ = false, ready_ = false, complete_wanted_ = false,
       completing_ = false, pivoted_ = false, concluded_ = false;
};

}  // namespace bulkhead::block
