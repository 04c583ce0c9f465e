#include "zone/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace bulkhead::zone {
namespace {

TEST(Report, MilestonesAreMillisecondsSinceTheStart) {
  Report report;
  report.milestones.process_start = 1'000'000'000;
  report.milestones.agent_up = 1'123'456'789;
  report.exits = {{"port", 3, 30, 9, 20}};
  report.engine_counters = {{"blocks", 7}};
  const auto json = nlohmann::json::parse(report_json(report, 2));
  EXPECT_DOUBLE_EQ(json["milestones_ms"]["agent_up"], 123.456);
  EXPECT_TRUE(json["milestones_ms"]["command_started"].is_null());
  EXPECT_EQ(json["exits"]["port"]["p99_ns"], 20);
  EXPECT_EQ(json["engine_counters"]["blocks"], 7);
  EXPECT_TRUE(json["error"].is_null());
}

TEST(Report, HypercallsGoByNameWithLatencies) {
  Report report;
  EXPECT_TRUE(nlohmann::json::parse(report_json(report, 2))["hypercalls"].empty());
  report.hypercalls = {{"mmu_update", 4, 400, 90, 150, 200, 1}, {"hypercall_other", 0, 0, 0, 0, 0, 77}};
  const auto json = nlohmann::json::parse(report_json(report, 2))["hypercalls"];
  EXPECT_EQ(json["mmu_update"]["number"], 1);
  EXPECT_EQ(json["mmu_update"]["mean_ns"], 100);
  EXPECT_EQ(json["mmu_update"]["p90_ns"], 150);
  EXPECT_EQ(json["hypercall_other"]["mean_ns"], 0);
}

TEST(Report, TextFromAZoneCannotBreakIt) {
  Report report;
  report.error = "bad \xFF \" \n";
  EXPECT_NO_THROW(nlohmann::json::parse(report_json(report, -1)));
}

TEST(Report, GuestMemoryIsNotTheMonitors) {
  EXPECT_EQ(resident_bytes_beyond_guest("55d0-55d1 r--p 0 08:01 1 /usr/bin/bulkhead\nSize: 8 kB\nRss:   4 kB\n"
                                        "7f00-7f10 rw-s 0 00:01 9 /memfd:bulkhead-guest-ram (deleted)\nRss: 500000 kB\n"
                                        "7f20-7f30 rw-p 0 00:00 0 \nRss: 12 kB\nAnonymous: 12 kB\n"),
            16u * 1024);
  EXPECT_EQ(resident_bytes_beyond_guest("7f20-7f30 rw-s 0 00:01 9 /memfd:bulkhead-code (deleted)\nRss: 20 kB\n"
                                        "7f40-7f50 r-xs 0 00:01 9 /memfd:bulkhead-code (deleted)\nRss: 16 kB\n"),
            20u * 1024);
  EXPECT_EQ(resident_bytes_beyond_guest("Rss: junk\nRss:"), 0u);
}

TEST(Report, UnwritablePlaceIsAnError) { EXPECT_FALSE(write_report({}, "/no/such/folder/report.json")); }

}  // namespace
}  // namespace bulkhead::zone
