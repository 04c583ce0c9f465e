#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/result.h"
#include "base/start_code.h"

namespace bulkhead {
namespace {

TEST(Bits, AlignmentAndFields) {
  EXPECT_EQ(align_up(1, 4096), 4096u);
  EXPECT_EQ(align_up(4096, 4096), 4096u);
  EXPECT_EQ(align_down(4097, 4096), 4096u);
  EXPECT_TRUE(is_aligned(0, 4096));
  EXPECT_FALSE(is_aligned(2, 4));
  EXPECT_EQ(bits(0xabcd, 11, 4), 0xbcu);
  EXPECT_EQ(bits(~u64{0}, 63, 0), ~u64{0});
  EXPECT_TRUE(bit(u64{1} << 63, 63));
}

TEST(Bits, MasksAndSignExtension) {
  EXPECT_EQ(mask_for_size(1), 0xffu);
  EXPECT_EQ(mask_for_size(8), ~u64{0});
  EXPECT_EQ(sign_extend(0x80, 1), ~u64{0x7f});
  EXPECT_EQ(sign_extend(0x7f, 1), 0x7fu);
  EXPECT_EQ(sign_extend(0xdeadbeef80000000, 4), 0xffffffff80000000u);
}

TEST(Bits, RangesThatWrapAreOutside) {
  EXPECT_TRUE(range_within(0, 16, 16));
  EXPECT_FALSE(range_within(1, 16, 16));
  EXPECT_FALSE(range_within(~u64{0}, 2, 16));
  EXPECT_FALSE(range_within(2, ~u64{0}, 16));
  EXPECT_TRUE(range_within(16, 0, 16));
}

TEST(Addresses, OfOneSpaceAreOrderedAndSubtracted) {
  EXPECT_EQ((Gpa{0x2000} - Gpa{0x1000}), 0x1000u);
  EXPECT_EQ(Gpa{0x1000} + 8, Gpa{0x1008});
  EXPECT_LT(Gpa{1}, Gpa{2});
}

Result<int> half(int value) {
  if (value % 2 != 0) return fail("{} is odd; give an even number", value);
  return value / 2;
}
Result<int> quarter(int value) {
  BH_ASSIGN(const int once, half(value));
  BH_TRY(half(once));
  return half(once);
}

TEST(Result, CarriesTheFirstErrorUp) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(7).error().message, "7 is odd; give an even number");
  EXPECT_EQ(quarter(6).error().message, "3 is odd; give an even number");
}

TEST(Result, TakesErrnoBeforeAnythingElse) {
  errno = ENOENT;
  const Result<int> result = fail_errno("cannot open {}", "x");
  EXPECT_EQ(result.error().message, "cannot open x: No such file or directory");
}

TEST(UniqueFd, ClosesExactlyOnce) {
  UniqueFd first{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  ASSERT_TRUE(first);
  const int number = first.get();
  UniqueFd second{std::move(first)};
  EXPECT_EQ(second.get(), number);
  second.reset();
  EXPECT_FALSE(second);
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
  second.reset();
}

TEST(UniqueFd, ReleaseKeepsItOpen) {
  UniqueFd fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  const int number = fd.release();
  EXPECT_FALSE(fd);
  EXPECT_NE(::fcntl(number, F_GETFD), -1);
  ::close(number);
}

TEST(HostClock, NeverGoesBackwards) {
  const HostClock clock;
  const Nanoseconds first = clock.now();
  EXPECT_LE(first, clock.now());
  EXPECT_GT(clock.unix_time_ns(), 1'600'000'000'000'000'000u);
}

TEST(FakeClock, MovesOnlyWhenTold) {
  FakeClock clock;
  clock.set_unix_base(100);
  clock.advance(5);
  EXPECT_EQ(clock.now(), 5u);
  EXPECT_EQ(clock.unix_time_ns(), 105u);
}

TEST(Log, WarningsAreOnAndDebugIsOff) {
  EXPECT_TRUE(log_enabled(LogLevel::kWarning));
  EXPECT_FALSE(log_enabled(LogLevel::kDebug));
  testing::internal::CaptureStderr();
  log_debug("not {}", "seen");
  log_warning("disk {} is gone", 3);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "bulkhead: disk 3 is gone\n");
}

// Code, constants and what was relocated (virtual functions) are as they were.
TEST(StartCode, ComesBackWhenItIsTouched) {
  struct Base {
    virtual ~Base() = default;
    virtual int number() const { return 1; }
  };
  struct Derived : Base {
    int number() const override { return 2; }
  };
  const std::unique_ptr<Base> one = std::make_unique<Derived>();
  for (int i = 0; i < 3; ++i) {
    give_back_start_code();
    EXPECT_EQ(one->number(), 2);
    EXPECT_EQ(fmt::format("{:#x} {}", 0x5a, "text"), "0x5a text");
    EXPECT_THROW(throw std::runtime_error{"unwinding reads tables"}, std::runtime_error);
  }
}

TEST(AssertDeathTest, SaysWhoseZoneItWas) {
  set_zone_identity("blue");
  EXPECT_DEATH(BH_ASSERT(1 == 2), "zone 'blue': internal error: 1 == 2");
  set_zone_identity(std::string(200, 'x'));  // longer than we keep
  EXPECT_DEATH(BH_ASSERT(false), "zone 'x{63}': internal error");
  set_zone_identity("");
}

}  // namespace
}  // namespace bulkhead
