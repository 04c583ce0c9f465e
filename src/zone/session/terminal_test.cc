#include "zone/session/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bulkhead::zone {
namespace {

class RawTerminalTest : public ::testing::Test {
 protected:
  RawTerminalTest() : master_{::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)} {
    ::grantpt(master_.get());
    ::unlockpt(master_.get());
    slave_ = UniqueFd{::open(::ptsname(master_.get()), O_RDWR | O_NOCTTY | O_CLOEXEC)};
  }
  bool is_raw() const {
    termios settings{};
    EXPECT_EQ(::tcgetattr(slave_.get(), &settings), 0);
    return (settings.c_lflag & ICANON) == 0;
  }
  UniqueFd master_, slave_;
};

TEST_F(RawTerminalTest, IsRawAsLongAsItLives) {
  {
    const auto raw = RawTerminal::enter(slave_.get());
    ASSERT_TRUE(raw);
    EXPECT_TRUE(is_raw());
  }
  EXPECT_FALSE(is_raw());
}

TEST_F(RawTerminalTest, IsRestoredEvenWhenWeAreKilled) {
  const pid_t victim = ::fork();
  if (victim == 0) {
    const auto raw = RawTerminal::enter(slave_.get());
    ::kill(::getpid(), SIGKILL);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(victim, &status, 0), victim);
  ASSERT_TRUE(WIFSIGNALED(status));
  for (int tries = 0; tries < 5000 && is_raw(); ++tries) ::usleep(1000);
  EXPECT_FALSE(is_raw());
}

TEST(RawTerminal, NoTerminalIsAnError) {
  const UniqueFd nothing{::open("/dev/null", O_RDWR)};
  EXPECT_FALSE(RawTerminal::enter(nothing.get()));
}

}  // namespace
}  // namespace bulkhead::zone
