#include "zone/store/tool.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>

namespace bulkhead::zone {
namespace {

class ToolTest : public ::testing::Test {
 protected:
  Result<std::string> shell(std::string script) {
    return run_tool({.command = {"sh", "-c", std::move(script)}, .package = "dash", .keep_output = true}, workshop_);
  }
  Progress progress_{Progress::Show::kNever};
  Workshop workshop_{progress_};
};

TEST_F(ToolTest, KeepsOutput) { EXPECT_EQ(shell("echo one; echo two >&2").value(), "one\n"); }

TEST_F(ToolTest, FailureCarriesTheEndOfStderr) {
  const auto result = shell("for i in 1 2 3 4 5; do echo line $i >&2; done; exit 3");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "sh failed with status 3: line 3; line 4; line 5");
}

TEST_F(ToolTest, MissingToolNamesItsPackage) {
  const auto result = run_tool({.command = {"no-such-tool-at-all"}, .package = "some-package"}, workshop_);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message,
            "no-such-tool-at-all is not installed on this host: install the package some-package");
}

TEST_F(ToolTest, EndlessOutputIsBounded) { EXPECT_LE(shell("yes | head -c 20000000").value().size(), 4u << 20); }

TEST_F(ToolTest, InputIsEmptyAndEnvironmentIsAdded) {
  EXPECT_EQ(run_tool({.command = {"sh", "-c", "cat; echo $EXTRA"},
                      .package = "dash",
                      .environment = {{"EXTRA", "x"}},
                      .keep_output = true},
                     workshop_)
                .value(),
            "x\n");
}

TEST_F(ToolTest, ChildrenLeftBehindAreEnded) {
  const std::string pid = shell("sleep 1000 >/dev/null 2>&1 & echo $!").value();
  // The group was killed; the orphan may still be a zombie of process 1 for a moment.
  for (int tries = 0; tries < 1000 && ::kill(std::stoi(pid), 0) == 0; ++tries) {
    std::ifstream status{"/proc/" + std::to_string(std::stoi(pid)) + "/stat"};
    std::string text;
    std::getline(status, text);
    if (text.contains(") Z ") || text.empty()) return;
    ::usleep(1000);
  }
  EXPECT_NE(::kill(std::stoi(pid), 0), 0);
}

}  // namespace
}  // namespace bulkhead::zone
