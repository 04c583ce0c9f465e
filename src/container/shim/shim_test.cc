#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "container/shim/flags.h"
#include "container/shim/statistics.h"
#include "github.com/containerd/cgroups/v2/stats/metrics.pb.h"

namespace bulkhead::container {
namespace {

using ::testing::HasSubstr;

TEST(Flags, AsContainerdGivesThem) {
  const auto flags = parse_flags({"-namespace", "k8s.io", "--address=/run/c.sock", "-publish-binary",
                                  "/usr/bin/containerd", "-id", "abc", "-debug", "-bundle=/b", "start"});
  ASSERT_TRUE(flags) << flags.error().message;
  EXPECT_EQ(flags->space, "k8s.io");
  EXPECT_EQ(flags->address, "/run/c.sock");
  EXPECT_EQ(flags->id, "abc");
  EXPECT_EQ(flags->bundle, "/b");
  EXPECT_EQ(flags->action, "start");
}

TEST(Flags, Refusals) {
  EXPECT_THAT(parse_flags({"-id", "a"}).error().message, HasSubstr("-namespace"));
  EXPECT_THAT(parse_flags({"-namespace", "n", "-id", "../a"}).error().message, HasSubstr("no name"));
  EXPECT_THAT(parse_flags({"-colour", "red"}).error().message, HasSubstr("-colour"));
  EXPECT_THAT(parse_flags({"-namespace", "n", "-id"}).error().message, HasSubstr("needs a value"));
  EXPECT_THAT(parse_flags({"-namespace", "n", "-id", "a", "start", "delete"}).error().message, HasSubstr("one action"));
}

TEST(Flags, SocketsAndNamesAreOfOnePodEach) {
  ShimFlags one;
  one.space = "a";
  ShimFlags other = one;
  other.space = "b";
  EXPECT_EQ(server_socket(one, "x"), server_socket(one, "x"));
  EXPECT_NE(server_socket(one, "x"), server_socket(one, "y"));
  EXPECT_NE(server_socket(one, "x"), server_socket(other, "x"));
  EXPECT_LT(server_socket(one, std::string(200, 'x')).size(), 100u);
  EXPECT_EQ(zone_name(one, "my_pod"), "a-my-pod");
  EXPECT_LE(zone_name(one, std::string(200, 'x')).size(), 63u);
}

TEST(Statistics, AsContainerdsMetrics) {
  pod::StatsResponse numbers;
  (*numbers.mutable_values())["memory.current"] = 4096;
  (*numbers.mutable_values())["cpu.stat usage_usec"] = 77;
  (*numbers.mutable_values())["memory.events oom_kill"] = 1;
  io::containerd::cgroups::v2::Metrics metrics;
  ASSERT_TRUE(metrics.ParseFromString(metrics_of(numbers)));
  EXPECT_EQ(metrics.memory().usage(), 4096u);
  EXPECT_EQ(metrics.cpu().usage_usec(), 77u);
  EXPECT_EQ(metrics.memory_events().oom_kill(), 1u);
  EXPECT_EQ(metrics.pids().current(), 0u);
}

}  // namespace
}  // namespace bulkhead::container
