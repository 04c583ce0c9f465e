#include "device/debugcon/debugcon.h"

#include <gtest/gtest.h>

#include "device/testing/fake_console.h"
#include "device/testing/hostile.h"

namespace bulkhead::device {
namespace {

struct DebugconTest : ::testing::Test {
  void say(std::string_view text) {
    for (const char c : text) device.port().write(0, static_cast<u8>(c), AccessSize::k1);
  }
  testing::FakeConsole console;
  Debugcon device{console};
};

TEST_F(DebugconTest, WritesGoToTheHost) {
  say("hello\n");
  EXPECT_EQ(console.output, "hello\n");
}

TEST_F(DebugconTest, ReadsSaySomebodyListens) { EXPECT_EQ(device.port().read(0, AccessSize::k1).value, 0xe9u); }

TEST_F(DebugconTest, KeepsWhatTheHostDoesNotTakeYet) {
  console.set_room(2);
  say("abcdef");
  EXPECT_EQ(console.output, "ab");
  console.set_room(3);
  EXPECT_EQ(console.output, "abcde");
  console.set_room(testing::FakeConsole::kUnlimited);
  EXPECT_EQ(console.output, "abcdef");
  say("g");
  EXPECT_EQ(console.output, "abcdefg");
  EXPECT_EQ(device.dropped(), 0u);
}

TEST_F(DebugconTest, AFloodIsBoundedAndCounted) {
  console.room = 0;
  for (std::size_t i = 0; i < Debugcon::kBufferLimit + 100; ++i) say("x");
  EXPECT_EQ(device.dropped(), 100u);
  EXPECT_LE(console.writes, 2u) << "a full backend is not asked for every byte";
  console.set_room(testing::FakeConsole::kUnlimited);
  EXPECT_EQ(console.output.size(), Debugcon::kBufferLimit);
}

TEST_F(DebugconTest, AnswersEveryWidthEverywhere) { testing::sweep(device.port(), 1); }

TEST(Debugcon, LeavesNoCallbackBehind) {
  testing::FakeConsole console;
  {
    Debugcon device{console};
  }
  console.type("x");
  console.set_room(1);
}

}  // namespace
}  // namespace bulkhead::device
