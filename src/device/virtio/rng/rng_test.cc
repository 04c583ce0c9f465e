#include "device/virtio/rng/rng.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "device/virtio/mmio/mmio.h"
#include "support/hostile_guest.h"

namespace bulkhead::device::virtio {
namespace {

using test::RingOptions;

class CountingSource final : public EntropySource {
 public:
  void fill(std::span<std::byte> out) override {
    std::ranges::fill(out, std::byte{0x5a});
    bytes += out.size();
  }
  u64 bytes = 0;
};

class RngTest : public ::testing::TestWithParam<RingOptions> {
 protected:
  GuestMemory memory_ = *GuestMemory::create_pc(4_MiB);
  CountingSource source_;
  VirtioRng rng_{source_};
  test::RecordingIrq irq_;
  VirtioMmio mmio_{rng_, memory_, irq_};
  test::VirtioGuest guest_{mmio_, memory_};
};

INSTANTIATE_TEST_SUITE_P(Rings, RngTest,
                         ::testing::Values(RingOptions{false, false, false}, RingOptions{false, true, true},
                                           RingOptions{true, false, false}, RingOptions{true, true, true}));

TEST_P(RngTest, FillsWhatTheGuestGives) {
  ASSERT_TRUE(guest_.bring_up(0, GetParam(), 1, 8));
  EXPECT_EQ(guest_.read(8), 4u);
  for (int lap = 0; lap < 30; ++lap) {
    const Gpa at = guest_.put(std::string(100, 'x'));
    guest_.queue(0).request_interrupt();
    guest_.queue(0).add({{at, 40, true}, {at + 50, 10, true}});
    guest_.kick(0);
    const auto used = guest_.queue(0).poll();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 50u);
    EXPECT_EQ(guest_.get(at, 100),
              std::string(40, 'Z') + std::string(10, 'x') + std::string(10, 'Z') + std::string(40, 'x'));
    EXPECT_TRUE(irq_.level());
    guest_.write(0x64, guest_.read(0x60));
    EXPECT_FALSE(irq_.level());
  }
}

TEST_P(RngTest, AbsurdLengthCostsNoMoreThanTheLimit) {
  ASSERT_TRUE(guest_.bring_up(0, GetParam(), 1, 8));
  guest_.queue(0).add({{Gpa{1_MiB}, 2_MiB, true}});
  guest_.kick(0);
  EXPECT_EQ(guest_.queue(0).poll()->length, VirtioRng::kMaxBytes);
  EXPECT_EQ(source_.bytes, VirtioRng::kMaxBytes);
}

TEST_P(RngTest, ReadableBuffersAreGivenBackUntouched) {
  ASSERT_TRUE(guest_.bring_up(0, GetParam(), 1, 8));
  guest_.queue(0).add({{guest_.put("hello"), 5, false}});
  guest_.kick(0);
  EXPECT_EQ(guest_.queue(0).poll()->length, 0u);
  EXPECT_FALSE(guest_.needs_reset());
}

TEST(RngHostile, SurvivesAndWorksAfterwards) {
  const GuestMemory memory = *GuestMemory::create_pc(4_MiB);
  CountingSource source;
  VirtioRng rng{source};
  test::RecordingIrq irq;
  VirtioMmio mmio{rng, memory, irq};
  for (u64 seed = 0; seed < 4; ++seed) {
    test::HostileGuest hostile{mmio, memory, seed};
    hostile.touch_registers(20000, 1);
    hostile.corrupt_rings(500, 1, 0);
    test::VirtioGuest guest{mmio, memory};
    ASSERT_TRUE(guest.bring_up(0, {true, true, true}, 1, 8));
    guest.queue(0).add({{guest.allocate(16), 16, true}});
    guest.kick(0);
    EXPECT_EQ(guest.queue(0).poll()->length, 16u);
  }
  EXPECT_GT(mmio.session().faults(Fault::kNotRam), 0u);
}

}  // namespace
}  // namespace bulkhead::device::virtio
