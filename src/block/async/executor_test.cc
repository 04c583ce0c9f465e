#include "block/async/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "block/async/range_lock.h"

namespace bulkhead::block {
namespace {

class ExecutorTest : public ::testing::TestWithParam<IoEngineKind> {
 protected:
  void SetUp() override {
    auto made = Executor::create({.engine = GetParam()});
    if (!made && GetParam() == IoEngineKind::kUring) GTEST_SKIP() << made.error().message;
    ASSERT_TRUE(made.has_value());
    executor_ = std::move(*made);
  }
  std::unique_ptr<Executor> executor_;
};

Task<int> immediate(int value) { co_return value; }
Task<u64> sum_of(int count) {
  u64 sum = 0;
  for (int i = 0; i < count; ++i) sum += static_cast<u64>(co_await immediate(i));
  co_return sum;
}
Task<void> append(std::vector<int>* order, Executor* executor, int value) {
  for (int turn = 0; turn < 3; ++turn) {
    order->push_back(value);
    co_await executor->yield();
  }
}

TEST_P(ExecutorTest, MillionsOfTasksThatNeverWaitDoNotGrowTheStack) {
  EXPECT_EQ(executor_->run(sum_of(3'000'000)), 3'000'000ull * 2'999'999 / 2);
}

TEST_P(ExecutorTest, WhoYieldsLetsTheOthersGo) {
  std::vector<int> order;
  executor_->run([&] {
    executor_->spawn(append(&order, executor_.get(), 1));
    executor_->spawn(append(&order, executor_.get(), 2));
  });
  executor_.reset();  // waits for both
  EXPECT_EQ(order, (std::vector<int>{1, 2, 1, 2, 1, 2}));
}

TEST_P(ExecutorTest, PostedWorkRunsInOrderOnOneThread) {
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i) executor_->post([&order, i] { order.push_back(i); });
  bool on_thread = false;
  executor_->run([&] { on_thread = executor_->on_thread(); });
  EXPECT_TRUE(on_thread);
  EXPECT_FALSE(executor_->on_thread());
  ASSERT_EQ(order.size(), 1000u);
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

Task<i64> bad_read(Executor* executor) {
  std::byte byte{};
  const IoBuffer buffer{&byte, 1};
  IoOp op;
  op.fd = -1;
  op.buffers = {&buffer, 1};
  co_return co_await executor->io(op);
}
TEST_P(ExecutorTest, FailedCallsAreNegativeErrnos) { EXPECT_EQ(executor_->run(bad_read(executor_.get())), -EBADF); }

Task<void> sleep_and_note(Executor* executor, std::vector<int>* order, Nanoseconds time, int value) {
  co_await executor->sleep_for(time);
  order->push_back(value);
}
TEST_P(ExecutorTest, SleepersWakeInTheOrderOfTheirDeadlines) {
  std::vector<int> order;
  executor_->run([&] {
    executor_->spawn(sleep_and_note(executor_.get(), &order, 20'000'000, 2));
    executor_->spawn(sleep_and_note(executor_.get(), &order, 1'000'000, 1));
  });
  executor_.reset();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

Task<bool> call_elsewhere(Executor* executor) {
  bool elsewhere = false;
  std::function<void()> look = [&] { elsewhere = !executor->on_thread(); };
  co_await executor->call(look);
  co_return elsewhere && executor->on_thread();
}
TEST_P(ExecutorTest, CallsThatBlockRunOnAnotherThread) { EXPECT_TRUE(executor_->run(call_elsewhere(executor_.get()))); }

Task<void> hold_mutex(AsyncMutex* mutex, Executor* executor, std::vector<int>* order, int value) {
  const AsyncMutex::Guard guard = co_await mutex->lock();
  order->push_back(value);
  co_await executor->yield();
  order->push_back(value);
}
TEST_P(ExecutorTest, MutexIsHeldAcrossAwaitsAndGivenInOrder) {
  std::vector<int> order;
  AsyncMutex mutex{*executor_};
  executor_->run([&] {
    for (int i = 0; i < 4; ++i) executor_->spawn(hold_mutex(&mutex, executor_.get(), &order, i));
  });
  executor_.reset();
  EXPECT_EQ(order, (std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3}));
}

Task<void> hold_range(RangeLock* lock, Executor* executor, std::vector<int>* order, u64 at, RangeLock::Mode mode,
                      int value) {
  RangeLock::Hold hold{*lock, at, 10, mode};
  co_await hold.acquire();
  order->push_back(value);
  co_await executor->yield();
  order->push_back(-value);
}
TEST_P(ExecutorTest, OverlappingRangesWaitAndOthersDoNot) {
  std::vector<int> order;
  RangeLock lock{*executor_};
  using enum RangeLock::Mode;
  executor_->run([&] {
    executor_->spawn(hold_range(&lock, executor_.get(), &order, 0, kShared, 1));
    executor_->spawn(hold_range(&lock, executor_.get(), &order, 5, kShared, 2));
    executor_->spawn(hold_range(&lock, executor_.get(), &order, 9, kExclusive, 3));
    executor_->spawn(hold_range(&lock, executor_.get(), &order, 9, kShared, 4));  // behind 3, which came first
    executor_->spawn(hold_range(&lock, executor_.get(), &order, 100, kExclusive, 5));
  });
  executor_.reset();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 5, -1, -2, -5, 3, -3, 4, -4}));
}

INSTANTIATE_TEST_SUITE_P(Engines, ExecutorTest, ::testing::Values(IoEngineKind::kUring, IoEngineKind::kThreads),
                         [](const auto& one) { return one.param == IoEngineKind::kUring ? "uring" : "threads"; });

}  // namespace
}  // namespace bulkhead::block
