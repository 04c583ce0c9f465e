#include "base/timer_service.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fake_timers.h"

namespace bulkhead {
namespace {

TEST(HostTimerService, RunsACallbackNotBeforeItsDeadline) {
  HostTimerService service;
  std::latch done{1};
  Nanoseconds ran_at = 0;
  const auto timer = service.create([&] {
    ran_at = service.clock().now();
    done.count_down();
  });
  const Nanoseconds deadline = service.clock().now() + 2'000'000;
  timer->arm(deadline);
  done.wait();
  EXPECT_GE(ran_at, deadline);
}

TEST(HostTimerService, RunsInOrderOfDeadlines) {
  HostTimerService service;
  std::latch done{2};
  std::vector<int> order;  // only the timer thread touches it until `done`
  const auto later = service.create([&] { order.push_back(2), done.count_down(); });
  const auto sooner = service.create([&] { order.push_back(1), done.count_down(); });
  const Nanoseconds now = service.clock().now();
  later->arm(now + 20'000'000);
  sooner->arm(now + 10'000'000);
  done.wait();
  EXPECT_EQ(order, (std::vector{1, 2}));
}

TEST(HostTimerService, ADeadlineInThePastRunsOnce) {
  HostTimerService service;
  std::atomic<int> runs = 0;
  std::latch done{1};
  const auto timer = service.create([&] { ++runs; });
  const auto last = service.create([&] { done.count_down(); });
  timer->arm(0);
  last->arm(1);
  done.wait();
  EXPECT_EQ(runs, 1);
}

TEST(HostTimerService, ACallbackMayArmItsOwnTimer) {
  HostTimerService service;
  std::latch done{3};
  Timer* self = nullptr;
  int left = 3;
  const auto timer = service.create([&] {
    if (--left > 0) self->arm(0);
    done.count_down();
  });
  self = timer.get();
  timer->arm(0);
  done.wait();
}

TEST(HostTimerService, ADisarmedTimerDoesNotRun) {
  HostTimerService service;
  std::atomic<bool> ran = false;
  std::latch done{1};
  const auto timer = service.create([&] { ran = true; });
  const auto after = service.create([&] { done.count_down(); });
  const Nanoseconds now = service.clock().now();
  timer->arm(now + 50'000'000);
  timer->disarm();
  after->arm(now + 50'000'001);
  done.wait();
  EXPECT_FALSE(ran);
}

TEST(HostTimerService, ArmingAgainReplacesTheDeadline) {
  HostTimerService service;
  std::atomic<int> runs = 0;
  std::latch done{1};
  const auto timer = service.create([&] { ++runs, done.count_down(); });
  timer->arm(~u64{0});  // as far away as it goes: must not wrap round to "now"
  timer->arm(0);
  done.wait();
  EXPECT_EQ(runs, 1);
}

TEST(HostTimerService, DestroyingATimerWaitsForItsCallback) {
  HostTimerService service;
  std::latch entered{1};
  std::atomic<bool> left = false;
  auto timer = service.create([&] {
    entered.count_down();
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    left = true;
  });
  timer->arm(0);
  entered.wait();
  timer.reset();
  EXPECT_TRUE(left);
}

TEST(HostTimerService, ManyThreadsMayArmAndDestroyAtOnce) {
  HostTimerService service;
  std::atomic<u64> runs = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        const auto timer = service.create([&] { ++runs; });
        timer->arm(service.clock().now() + static_cast<u64>(i % 3) * 1000);
        if (i % 5 == 0) timer->disarm();
        if (i % 7 == 0) std::this_thread::yield();
      }
    });
  threads.clear();
  EXPECT_LE(runs, 2000u);
}

TEST(HostTimerServiceDeathTest, OutlivingTheServiceIsOurBug) {
  EXPECT_DEATH(
      {
        auto service = std::make_unique<HostTimerService>();
        auto timer = service->create([] {});
        service.reset();
      },
      "internal error");
}

TEST(FakeTimerService, StopsAtEveryDeadlineOnTheWay) {
  FakeTimerService service;
  std::vector<Nanoseconds> at;
  const auto a = service.create([&] { at.push_back(service.clock().now()); });
  const auto b = service.create([&] { at.push_back(service.clock().now()); });
  a->arm(30);
  b->arm(10);
  service.advance(29);
  EXPECT_EQ(at, (std::vector<Nanoseconds>{10}));
  service.advance(71);
  EXPECT_EQ(at, (std::vector<Nanoseconds>{10, 30}));
  EXPECT_EQ(service.clock().now(), 100u);
}

TEST(FakeTimerService, AStallRunsLateCallbacksOnce) {
  FakeTimerService service;
  Timer* self = nullptr;
  const auto timer = service.create([&] { self->arm(service.clock().now() + 10); });
  self = timer.get();
  timer->arm(10);
  service.stall(1000);
  EXPECT_EQ(service.fired(), 1u);
  EXPECT_EQ(service.armed(), 1u);
}

TEST(FakeTimerService, ADestroyedTimerIsForgotten) {
  FakeTimerService service;
  auto timer = service.create([] { FAIL(); });
  timer->arm(1);
  timer.reset();
  service.advance(10);
  EXPECT_EQ(service.armed(), 0u);
}

}  // namespace
}  // namespace bulkhead
