// A slice of the differential run.
#include <gtest/gtest.h>

#include "tests/insn/campaign.h"
#include "tests/insn/generator.h"

namespace bulkhead::insn {
namespace {

void expect_agreement(const CampaignOptions& options) {
  const CampaignResult result = run_campaign(options, {});
  for (const std::string& report : result.reports) ADD_FAILURE() << report;
  EXPECT_EQ(result.mismatches, 0u);
  EXPECT_EQ(result.crashes, 0u);
  EXPECT_EQ(result.cases, options.cases);
  EXPECT_GT(result.faults, 0u);
}

TEST(InsnFuzz, InterpreterAgreesWithTheHost) {
  expect_agreement({.seed = 20, .cases = 20000, .interpreter = true, .translator = false});
}

TEST(InsnFuzz, TranslatorAgreesWithTheHost) {
  expect_agreement({.seed = 21, .cases = 20000, .interpreter = false, .translator = true});
}

TEST(InsnFuzz, CaseDependsOnSeedAndIndexAlone) {
  Case first, again;
  generate_case(7, 12345, kCodeBase + 400, first);
  generate_case(7, 12345, kCodeBase + 400, again);
  EXPECT_EQ(first.code, again.code);
  EXPECT_EQ(first.before.gpr, again.before.gpr);
  EXPECT_EQ(first.before.zmm, again.before.zmm);
}

TEST(InsnFuzz, CasesFitTheirRoom) {
  for (u64 i = 0; i < 5000; ++i) {
    Case test;
    generate_case(3, i, kCodeBase, test);
    ASSERT_GT(test.insn_count, 0u) << i;
    ASSERT_LE(test.length, Case::kMaxCode) << i;
    for (unsigned patch = 0; patch < test.patch_count; ++patch) {
      ASSERT_GE(test.patches[patch].address, kDataBase) << i;
      ASSERT_LE(test.patches[patch].address + test.patches[patch].size, kDataBase + kWritableSize) << i;
    }
  }
}

}  // namespace
}  // namespace bulkhead::insn
