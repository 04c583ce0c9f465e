// The recorded differential run: random user-mode instructions on the host CPU and on the built-in engine.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "tests/insn/campaign.h"

int main(int argc, char** argv) {
  using namespace bulkhead::insn;
  CLI::App app{"Runs random user-mode instructions on the host CPU and on the built-in engine, and compares."};
  CampaignOptions options;
  std::string runner = "all";
  app.add_option("--cases", options.cases, "how many cases");
  app.add_option("--seed", options.seed, "which sequence of cases");
  app.add_option("--first", options.first, "index of the first case");
  app.add_option("--runner", runner, "what is compared with the host")
      ->check(CLI::IsMember({"interpreter", "interp", "translator", "all"}));
  app.add_option("--max-reports", options.max_reports, "how many reproducers are printed");
  app.add_flag("--verbose", options.verbose, "print every case before it runs");
  CLI11_PARSE(app, argc, argv);
  options.interpreter = runner != "translator";
  options.translator = runner == "translator" || runner == "all";

  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  const bool terminal = isatty(STDERR_FILENO);
  size_t printed = 0;
  const CampaignResult result = run_campaign(options, [&](const CampaignResult& now) {
    for (; printed < now.reports.size(); ++printed) fmt::print("{}\n", now.reports[printed]);
    fflush(stdout);
    if (terminal) fmt::print(stderr, "\r{} cases, {:.0f}/s ", now.cases, static_cast<double>(now.cases) / seconds());
  });
  if (terminal) fmt::print(stderr, "\n");
  fmt::print(
      "insn_fuzz_run: seed {} runner {}: {} cases, {} instructions, {} exceptions, {} mismatches, {} crashes, {} with "
      "dead "
      "flags lost at an exception, {:.1f} s\n",
      options.seed, runner, result.cases, result.instructions, result.faults, result.mismatches, result.crashes,
      result.dead_flags, seconds());
  return result.mismatches || result.crashes ? 1 : 0;
}
