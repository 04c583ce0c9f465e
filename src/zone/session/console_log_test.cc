#include "zone/session/console_log.h"

#include <gtest/gtest.h>

namespace bulkhead::zone {
namespace {

class ConsoleLogTest : public ::testing::Test {
 protected:
  void feed(std::string_view text) { log_.feed(std::as_bytes(std::span{text})); }
  Wake wake_;
  ConsoleLog log_{wake_};
};

TEST_F(ConsoleLogTest, KeepsTheLastLines) {
  EXPECT_FALSE(log_.first_byte_at().has_value());
  for (int i = 0; i < 100; ++i) feed("line " + std::to_string(i) + "\r\n");
  feed("unfinished");
  EXPECT_EQ(log_.last_lines(3), (std::vector<std::string>{"line 98", "line 99", "unfinished"}));
  EXPECT_EQ(log_.last_lines(1000).size(), ConsoleLog::kKeptLines + 1);
  EXPECT_TRUE(log_.first_byte_at().has_value());
}

TEST_F(ConsoleLogTest, PanicIsNoticedEvenInPieces) {
  feed("[    1.0] Kernel pa");
  feed("nic - not syncing: VFS: no root\r");
  EXPECT_EQ(log_.panic(), "");
  feed("\nmore\n");
  EXPECT_EQ(log_.panic(), "Kernel panic - not syncing: VFS: no root");
}

TEST_F(ConsoleLogTest, EndlessLineIsBounded) {
  feed(std::string(10'000'000, 'x'));
  EXPECT_EQ(log_.last_lines(5).at(0).size(), ConsoleLog::kLineLength);
}

TEST_F(ConsoleLogTest, ControlCharactersDoNotReachATerminal) {
  feed("\033]0;evil\007\n\n");
  EXPECT_EQ(log_.last_lines(5), std::vector<std::string>{"?]0;evil?"});
}

}  // namespace
}  // namespace bulkhead::zone
