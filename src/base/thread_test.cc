#include "base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <semaphore>

namespace bulkhead {
namespace {

TEST(Thread, HasItsNameAndTakesNoSignals) {
  sigset_t before, blocked, after;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  ASSERT_EQ(::sigismember(&before, SIGTERM), 0);
  std::binary_semaphore end{0};
  std::thread thread = start_thread("bh-some-thread", [&] {
    ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    end.acquire();
  });
  std::array<char, 16> name{};
  ::pthread_getname_np(thread.native_handle(), name.data(), name.size());
  end.release();
  thread.join();
  EXPECT_STREQ(name.data(), "bh-some-thread");
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGRTMIN}) EXPECT_EQ(::sigismember(&blocked, signal), 1);
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(::sigismember(&after, SIGTERM), 0);
}

}  // namespace
}  // namespace bulkhead
