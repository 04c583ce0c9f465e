#include "block/debug/debug_node.h"

#include <gtest/gtest.h>

#include "block/null/null_node.h"
#include "block/testing/memory_node.h"

namespace bulkhead::block {
namespace {

struct DebugTest : ::testing::Test {
  DebugTest()
      : executor{std::move(*Executor::create())},
        below{std::make_shared<testing::MemoryNode>(*executor, 64_KiB, DiskAccess::kReadWrite)} {}
  std::shared_ptr<DebugNode> with(std::vector<std::string> rules) {
    std::vector<FaultRule> parsed;
    for (const std::string& rule : rules) {
      auto one = DebugNode::parse_rule(rule);
      EXPECT_TRUE(one.has_value()) << one.error().message;
      parsed.push_back(*one);
    }
    return std::make_shared<DebugNode>(below, std::move(parsed));
  }
  IoStatus write(Node& node, u64 offset, u64 length) {
    const std::vector<std::byte> data(length, std::byte{1});
    return executor->run(node.write_bytes(offset, data));
  }
  std::unique_ptr<Executor> executor;
  std::shared_ptr<testing::MemoryNode> below;
};

TEST_F(DebugTest, TheNthRequestOfAKindFails) {
  const auto node = with({"write,from=2,count=2,status=enospc"});
  EXPECT_EQ(write(*node, 0, 512), IoStatus::kOk);
  EXPECT_EQ(write(*node, 0, 512), IoStatus::kNoSpace);
  EXPECT_EQ(write(*node, 0, 512), IoStatus::kNoSpace);
  EXPECT_EQ(write(*node, 0, 512), IoStatus::kOk);
  EXPECT_EQ(node->hits(), 2u);
  EXPECT_EQ(below->journal(), "ww");
}

TEST_F(DebugTest, OnlyTheRangeOfTheRule) {
  const auto node = with({"any,offset=4K,length=4K,status=eio", "flush,status=eio"});
  std::array<std::byte, 512> data;
  EXPECT_EQ(executor->run(node->read_bytes(4096 - 512, data)), IoStatus::kOk);
  EXPECT_EQ(executor->run(node->read_bytes(4096, data)), IoStatus::kIoError);
  EXPECT_EQ(write(*node, 4096 - 512, 1024), IoStatus::kIoError);
  EXPECT_EQ(write(*node, 8192, 512), IoStatus::kOk);
  EXPECT_EQ(executor->run(node->discard(7680, 1024)), IoStatus::kIoError);
  EXPECT_EQ(executor->run(node->write_zeroes(0, 8192)), IoStatus::kIoError);
  EXPECT_EQ(executor->run(node->flush()), IoStatus::kIoError);
}

TEST_F(DebugTest, ATornWriteReachesTheDiskInPart) {
  const auto node = with({"write,status=eio,torn=700"});
  EXPECT_EQ(write(*node, 1024, 2048), IoStatus::kIoError);
  EXPECT_EQ(below->bytes[1024 + 699], std::byte{1});
  EXPECT_EQ(below->bytes[1024 + 700], std::byte{0});
}

TEST_F(DebugTest, AWriteThatIsDoneAndFailsAllTheSame) {
  const auto node = with({"write,status=eio,after=on"});
  EXPECT_EQ(write(*node, 0, 512), IoStatus::kIoError);
  EXPECT_EQ(below->bytes[0], std::byte{1});
}

TEST_F(DebugTest, DelaysAreServed) {
  const auto node = with({"read,delay=5ms"});
  std::array<std::byte, 512> data;
  const HostClock clock;
  const Nanoseconds begin = clock.now();
  EXPECT_EQ(executor->run(node->read_bytes(0, data)), IoStatus::kOk);
  EXPECT_GE(clock.now() - begin, 5'000'000u);
}

TEST_F(DebugTest, RulesThatAreNoneAreNamed) {
  for (const auto& [text, word] : {std::pair{"", "begins with"},
                                   {"fly", "begins with"},
                                   {"read,status=bad", "status=bad"},
                                   {"read,what=1", "'what'"},
                                   {"read,from", "NAME=VALUE"},
                                   {"read,from=x", "'x'"},
                                   {"read,delay=5", "'5'"},
                                   {"read,delay=99999999999999999999s", "time"}})
    EXPECT_NE(DebugNode::parse_rule(text).error().message.find(word), std::string::npos) << text;
}

TEST(NullNode, ReadsZeroesWithinItsSize) {
  auto executor = std::move(*Executor::create());
  const auto node = std::make_shared<NullNode>(*executor, NullOptions{.size = 4096});
  std::array<std::byte, 512> data;
  data.fill(std::byte{1});
  EXPECT_EQ(executor->run(node->read_bytes(3584, data)), IoStatus::kOk);
  EXPECT_TRUE(all_zero(std::span<const std::byte>{data}));
  EXPECT_EQ(executor->run(node->read_bytes(3585, data)), IoStatus::kOutOfRange);
}

}  // namespace
}  // namespace bulkhead::block
