#include "tests/insn/campaign.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <new>

#include "base/assert.h"
#include "base/bits.h"
#include "tests/insn/compare.h"
#include "tests/insn/dbt_runner.h"
#include "tests/insn/generator.h"
#include "tests/insn/native_runner.h"

namespace bulkhead::insn {
namespace {

constexpr u64 kBatch = 1000;  // cases whose code is laid out together
constexpr u64 kPerProcess = 100000;
constexpr unsigned kStuckSeconds = 20;

// Written by the child, read by the parent after its death.
struct Shared {
  CampaignResult counts() const { return {done, instructions, faults, mismatches, dead_flags, 0, {}}; }
  u64 done, instructions, faults, mismatches, dead_flags;
  u64 current;  // index of the case that is running
  unsigned report_count;
  std::array<std::array<char, 16384>, 64> reports;
};

class Worker {
 public:
  Worker(const CampaignOptions& options, Shared& shared)
      : options_{options}, shared_{shared}, native_{make_native_runner()} {
    if (options.interpreter) runners_.push_back(make_interpreter_runner());
    if (options.translator) runners_.push_back(make_translator_runner());
  }

  void run(u64 first, u64 count) {
    std::vector<Case> batch;
    for (u64 at = 0; at < count; at += kBatch) {
      make_batch(first + at, std::min(kBatch, count - at), batch);
      native_->load(batch);
      for (const auto& runner : runners_) runner->load(batch);
      for (const Case& test : batch) run_case(test);
    }
  }

 private:
  void make_batch(u64 first, u64 count, std::vector<Case>& batch) {
    batch.resize(count);
    // Where a case lies must not depend on its neighbours, or it could not be run again alone.
    for (u64 i = 0; i < count; ++i) {
      const u64 slot = (first + i) % kBatch;
      generate_case(options_.seed, first + i, kCodeBase + slot * kSlot + (first + i) / kBatch % 64, batch[i]);
    }
  }

  void run_case(const Case& test) {
    shared_.current = test.index;
    alarm(kStuckSeconds);
    if (options_.verbose) fmt::print("case {}\n{}", test.index, disassemble(test));
    native_->run(test, expected_);
    for (const auto& runner : runners_) {
      runner->run(test, actual_);
      const Verdict verdict = compare(test, expected_, native_->memory(), actual_, runner->memory());
      if (verdict == Verdict::kSame) continue;
      if (verdict == Verdict::kDeadFlags && !runner->exact_flags_at_exceptions()) {
        ++shared_.dead_flags;
        continue;
      }
      ++shared_.mismatches;
      note(report(test, runner->name(), expected_, native_->memory(), actual_, runner->memory()));
    }
    ++shared_.done;
    shared_.instructions += test.insn_count;
    shared_.faults += expected_.vector != kNoFault;
  }

  void note(const std::string& text) {
    if (shared_.report_count >= std::min<size_t>(options_.max_reports, shared_.reports.size())) return;
    auto& to = shared_.reports[shared_.report_count++];
    std::memcpy(to.data(), text.data(), std::min(text.size(), to.size() - 1));
  }

  // Not a divisor of the page size, so that some cases lie across page boundaries.
  static constexpr u64 kSlot = 200;
  static_assert(kSlot >= Case::kMaxCode + kTerminatorSize + 64 && kBatch * kSlot <= kCodeSize);

  const CampaignOptions& options_;
  Shared& shared_;
  std::unique_ptr<CaseRunner> native_;
  std::vector<std::unique_ptr<CaseRunner>> runners_;
  Outcome expected_, actual_;
};

// Runs [first, first + count) in a child. Returns how many cases are behind us, a fatal one included.
u64 run_in_child(const CampaignOptions& options, u64 first, u64 count, CampaignResult& result) {
  void* at = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  BH_ASSERT(at != MAP_FAILED);
  auto& shared = *new (at) Shared{};
  shared.current = first;
  fflush(nullptr);
  const pid_t child = fork();
  BH_ASSERT(child >= 0);
  if (child == 0) {
    Worker{options, shared}.run(first, count);
    fflush(nullptr);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  const CampaignResult part = shared.counts();
  result.cases += part.cases;
  result.instructions += part.instructions;
  result.faults += part.faults;
  result.mismatches += part.mismatches;
  result.dead_flags += part.dead_flags;
  for (unsigned i = 0; i < shared.report_count && result.reports.size() < options.max_reports; ++i)
    result.reports.emplace_back(shared.reports[i].data());
  u64 behind = count;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    ++result.crashes;
    Case fatal;
    generate_case(options.seed, shared.current, kCodeBase, fatal);
    if (result.reports.size() < options.max_reports)
      result.reports.push_back(fmt::format("case {} of seed {} killed the process ({} {}):\n{}", shared.current,
                                           options.seed, WIFSIGNALED(status) ? "signal" : "status",
                                           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                                           disassemble(fatal)));
    behind = shared.current + 1 - first;
  }
  munmap(at, sizeof(Shared));
  return behind;
}

}  // namespace

CampaignResult run_campaign(const CampaignOptions& options,
                            const std::function<void(const CampaignResult&)>& progress) {
  CampaignResult result;
  u64 done = 0;
  while (done < options.cases) {
    done += run_in_child(options, options.first + done, std::min(kPerProcess, options.cases - done), result);
    if (progress) progress(result);
    if (result.crashes > 1000) break;  // something is wrong with everything
  }
  return result;
}

}  // namespace bulkhead::insn
