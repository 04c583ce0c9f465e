// What is asked of a job, and how it is doing. Values only.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"
#include "block/status.h"

namespace bulkhead::block {

enum class JobKind : u8 { kMirror, kBackup, kStream, kCommit };
// kFull: all that the disk reads as. kTop: what its top image holds; the copy stands on the same backing image. kNone,
// of a backup: only what the guest changes, as it was before; the copy stands on the disk's image.
enum class JobSync : u8 { kFull, kTop, kNone };
// kStop: the job halts until it is resumed, and then tries again. kIgnore: it goes on elsewhere and comes back later.
enum class JobErrorAction : u8 { kReport, kStop, kIgnore };
// kStopped: by an error. kReady: all is copied, and changes are copied at once; it waits to be completed.
enum class JobState : u8 { kRunning, kPaused, kStopped, kReady, kCompleting, kConcluded };

struct JobRequest {
  JobKind kind = JobKind::kMirror;
  std::string id{};             // empty: one is chosen
  std::string target{};         // mirror, backup: a file, made anew unless `existing`
  std::string format{};         // of the target: raw, qcow2; empty: by its name
  std::string key_file{};       // of the target: what is made is encrypted with it
  unsigned key_time_ms = 1000;  // that unlocking what is made is to take
  bool unencrypted = false;     // the target of an encrypted disk need not be encrypted
  bool existing = false;        // write into the file that is there, of the disk's size
  JobSync sync = JobSync::kFull;
  std::string bitmap{};  // backup: only what this bitmap of the disk's image says; it starts over if all went well
  std::string base{};    // stream: what stays below; commit: where to. A file of the chain; empty: nothing; the next
  std::string top{};     // commit: the uppermost image that goes away; empty: the disk's own
  u64 speed = 0;         // bytes a second of what the job reads by itself; 0: no limit
  JobErrorAction on_source_error = JobErrorAction::kReport, on_target_error = JobErrorAction::kReport;
  bool auto_complete = false;  // mirror, commit of the disk's own image: without being told to, when ready
};

struct JobStatus {
  std::string id;
  JobKind kind = JobKind::kMirror;
  JobState state = JobState::kRunning;
  u64 done = 0, total = 0, speed = 0;  // bytes
  u64 errors = 0;
  std::string file;        // where the copy goes
  std::string last_error;  // in words, or empty
  // Once concluded: at most one of these; neither is success.
  bool cancelled = false, failed = false;
  bool pivoted = false;  // the disk is `file` now
};

std::string_view name_of(JobKind kind);
std::string_view name_of(JobState state);
std::string_view name_of(JobSync sync);
std::string_view name_of(JobErrorAction action);
// Errors: names what there is.
Result<JobKind> parse_job_kind(std::string_view text);
Result<JobSync> parse_job_sync(std::string_view text);
Result<JobErrorAction> parse_job_error_action(std::string_view text);

}  // namespace bulkhead::block
