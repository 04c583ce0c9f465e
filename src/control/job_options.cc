#include "control/job_options.h"

#include "block/throttle/throttle.h"

namespace bulkhead::control {
namespace {

using block::JobKind;
using Verb = zone::Request::Verb;

CLI::App* add_verb(CLI::App& app, JobOptions& raw, const char* name, const char* help, Verb verb) {
  CLI::App* const one = app.add_subcommand(name, help);
  one->add_option("NAME", raw.zone, "the zone's name")->required();
  one->callback([&raw, verb] {
    raw.request.verb = verb;
    raw.chosen = true;
  });
  return one;
}

CLI::App* add_start(CLI::App& app, JobOptions& raw, JobKind kind, const char* help) {
  CLI::App* const one = add_verb(app, raw, std::string{block::name_of(kind)}.c_str(), help, Verb::kJobStart);
  one->add_option("DEVICE", raw.request.device, "the disk's name in the zone, e.g. vda")->required();
  one->callback([&raw, kind] {
    raw.request.verb = Verb::kJobStart;
    raw.request.job.kind = kind;
    raw.chosen = true;
  });
  one->add_option("--id", raw.request.job.id, "the job's name; else one is chosen and printed");
  one->add_option("--speed", raw.speed, "bytes a second, with a unit: 10M; 0: as fast as can be")
      ->capture_default_str();
  one->add_option("--on-source-error", raw.on_source_error, "report, stop or ignore")->capture_default_str();
  one->add_option("--on-target-error", raw.on_target_error, "report, stop or ignore")->capture_default_str();
  one->add_flag("--wait", raw.wait, "until it has ended, or is ready");
  one->add_flag("--unencrypted", raw.request.job.unencrypted, "of an encrypted disk: the copy need not be encrypted");
  return one;
}

void add_target(CLI::App& app, JobOptions& raw) {
  block::JobRequest& job = raw.request.job;
  app.add_option("TARGET", job.target, "the file that the copy goes to")->required();
  app.add_option("--format", job.format, "raw or qcow2; else by the file's name");
  app.add_flag("--existing", job.existing, "the file is there, of the disk's size, and is written into");
  app.add_option("--key-file", job.key_file, "the target is encrypted with what this file holds, or is so already");
  app.add_option("--sync", raw.sync,
                 "full; top: what the disk's own image holds; none, of a backup: what the guest changes, as it was")
      ->capture_default_str();
}

}  // namespace

void add_job_verbs(CLI::App& app, JobOptions& raw) {
  block::JobRequest& job = raw.request.job;
  app.require_subcommand(0, 1);
  add_verb(app, raw, "list", "the jobs of a zone's disks", Verb::kJobList)
      ->add_flag("--json", raw.json, "JSON on stdout");
  CLI::App* const mirror = add_start(app, raw, JobKind::kMirror, "copy a disk to a file that then takes its place");
  add_target(*mirror, raw);
  CLI::App* const backup = add_start(app, raw, JobKind::kBackup, "copy a disk as it is now");
  add_target(*backup, raw);
  backup->add_option("--bitmap", job.bitmap, "only what changed since this bitmap of the disk's image began");
  CLI::App* const stream = add_start(app, raw, JobKind::kStream, "bring what is below a disk's image up into it");
  stream->add_option("--base", job.base, "the image that stays below");
  CLI::App* const commit = add_start(app, raw, JobKind::kCommit, "bring images down into one below them");
  commit->add_option("--base", job.base, "where to; else the next below");
  commit->add_option("--top", job.top, "the uppermost that goes; else the disk's own, whose place the base takes");
  for (CLI::App* const one : {mirror, commit})
    one->add_flag("--auto-complete", job.auto_complete, "take the disk's place when ready, without being told to");
  for (const char* const action : {"pause", "resume", "cancel", "complete", "dismiss", "speed"}) {
    CLI::App* const one = add_verb(app, raw, action, "of a job", Verb::kJobChange);
    one->add_option("JOB", raw.request.id, "its name")->required();
    one->callback([&raw, action] {
      raw.request.verb = Verb::kJobChange;
      raw.request.action = action;
      raw.chosen = true;
    });
    if (std::string_view{action} == "speed")
      one->add_option("SPEED", raw.speed, "bytes a second; 0: no limit")->required();
    if (std::string_view{action} == "complete") one->add_flag("--wait", raw.wait, "until it has ended");
  }
  add_verb(app, raw, "wait", "until a job has ended, or is ready", Verb::kJobList)
      ->add_option("JOB", raw.request.id, "its name")
      ->required();
}

Result<ZoneAskCommand> finish_job(const JobOptions& raw) {
  if (!raw.chosen)
    return fail(
        "name a subcommand of zone job: list, mirror, backup, stream, commit, pause, resume, cancel, complete, speed, "
        "wait or dismiss");
  ZoneAskCommand out{raw.zone, raw.request};
  out.wait = raw.wait || (raw.request.verb == Verb::kJobList && !raw.request.id.empty());
  out.json = raw.json;
  auto speed = block::parse_amount(raw.speed);
  if (!speed) return fail("speed: {}", speed.error().message);
  out.request.speed = out.request.job.speed = *speed;
  BH_ASSIGN(out.request.job.sync, block::parse_job_sync(raw.sync));
  BH_ASSIGN(out.request.job.on_source_error, block::parse_job_error_action(raw.on_source_error));
  BH_ASSIGN(out.request.job.on_target_error, block::parse_job_error_action(raw.on_target_error));
  return out;
}

}  // namespace bulkhead::control
