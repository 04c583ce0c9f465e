#include "device/virtio/mmio/mmio.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <thread>

#include "device/core/rng/host_entropy.h"
#include "device/virtio/rng/rng.h"
#include "spec/virtio.h"
#include "support/virtio_guest.h"

namespace bulkhead::device::virtio {
namespace {

using namespace spec::virtio;
using namespace spec::virtio::mmio;

// A device of two queues that does nothing but remember.
class ProbeDevice final : public VirtioDevice {
 public:
  u32 type() const override { return 42; }
  u64 features() const override { return 5; }
  std::span<const u16> queue_sizes() const override { return sizes; }
  void read_config(u64 offset, std::span<std::byte> out) override {
    for (std::size_t i = 0; i < out.size(); ++i)
      if (offset + i < 6) out[i] = static_cast<std::byte>(offset + i + 1);
  }
  void write_config(u64 offset, std::span<const std::byte> in) override {
    written_at = offset;
    written_bytes = in.size();
  }
  void attach(DeviceHost& new_host, std::span<Queue> all) override {
    host = &new_host;
    queues = all;
  }
  void start(u64 features) override { started_with = features; }
  void notify(unsigned index) override { notified.push_back(index); }
  void quiesced(const std::function<void()>& change) override { change(); }
  void stop_queue(unsigned index) override { stopped.push_back(index); }
  void reset() override { started_with = 0; }

  static constexpr std::array<u16, 2> sizes{64, 16};
  DeviceHost* host = nullptr;
  std::span<Queue> queues;
  u64 started_with = 0, written_at = 0, written_bytes = 0;
  std::vector<unsigned> notified, stopped;
};

class MmioTest : public ::testing::Test {
 protected:
  GuestMemory memory_ = *GuestMemory::create_pc(4_MiB);
  ProbeDevice device_;
  test::RecordingIrq irq_;
  VirtioMmio mmio_{device_, memory_, irq_};
  test::VirtioGuest guest_{mmio_, memory_};
  u64 refused() const { return mmio_.session().counters()[Session::kRefusedAccesses].value(); }
};

TEST_F(MmioTest, Identity) {
  EXPECT_EQ(guest_.read(kRegMagic), kMagic);
  EXPECT_EQ(guest_.read(kRegVersion), 2u);
  EXPECT_EQ(guest_.read(kRegDeviceId), 42u);
  EXPECT_EQ(guest_.read(kRegShmLenLow), ~u32{0});
  EXPECT_EQ(guest_.read(0xc), 0x4b484c42u);
  EXPECT_EQ(guest_.offered_features(), 5 | kFeatureVersion1 | kFeaturePacked | kFeatureIndirect | kFeatureEventIndex);
  guest_.write(kRegDeviceFeaturesSel, 2);
  EXPECT_EQ(guest_.read(kRegDeviceFeatures), 0u);
}

TEST_F(MmioTest, TransportFeaturesCanBeWithheld) {
  ProbeDevice device;
  VirtioMmio plain{device, memory_, irq_, {.packed = false, .indirect = false, .event_index = false}};
  test::VirtioGuest guest{plain, memory_};
  EXPECT_EQ(guest.offered_features(), 5 | kFeatureVersion1);
  EXPECT_TRUE(guest.bring_up(~u64{0}, {}, 2, 16));
}

TEST_F(MmioTest, BringUpReachesTheDevice) {
  EXPECT_TRUE(guest_.bring_up(1, {true, false, true}, 2, 16));
  EXPECT_EQ(device_.started_with, 1 | kFeatureVersion1 | kFeaturePacked | kFeatureEventIndex);
  EXPECT_TRUE(device_.queues[0].enabled() && device_.queues[1].enabled());
  guest_.write(kRegQueueNotify, 1);
  EXPECT_EQ(device_.notified, std::vector{1u});
  guest_.write(kRegStatus, 0);
  EXPECT_EQ(device_.started_with, 0u);
  EXPECT_FALSE(device_.queues[0].enabled());
  EXPECT_EQ(guest_.status(), 0);
}

TEST_F(MmioTest, FeaturesNotOfferedAreRefused) {
  guest_.write(kRegStatus, 3);
  guest_.write(kRegDriverFeaturesSel, 0);
  guest_.write(kRegDriverFeatures, 0xff);
  guest_.write(kRegDriverFeaturesSel, 1);
  guest_.write(kRegDriverFeatures, 1);
  guest_.write(kRegStatus, 11);
  EXPECT_EQ(guest_.status(), 3) << "FEATURES_OK does not stick";
  guest_.write(kRegStatus, 15);
  EXPECT_EQ(guest_.status(), 3) << "nor DRIVER_OK without it";
  EXPECT_EQ(device_.started_with, 0u);
}

TEST_F(MmioTest, LegacyDriversAreRefused) {
  guest_.write(kRegStatus, 3);
  guest_.write(kRegStatus, 11);
  EXPECT_EQ(guest_.status(), 3) << "without VERSION_1";
}

TEST_F(MmioTest, FeaturesAreFixedOnceAgreed) {
  ASSERT_TRUE(guest_.bring_up(1, {}, 2, 16));
  guest_.write(kRegDriverFeaturesSel, 0);
  guest_.write(kRegDriverFeatures, 0xffffffff);
  guest_.write(kRegStatus, 1);  // bits are not taken back either
  EXPECT_EQ(guest_.status(), 15);
  EXPECT_GT(refused(), 0u);
}

TEST_F(MmioTest, LiveQueueIsNotReconfigured) {
  ASSERT_TRUE(guest_.bring_up(0, {}, 2, 16));
  const u64 before = refused();
  guest_.write(kRegQueueSel, 0);
  guest_.write(kRegQueueSize, 4);
  guest_.write(kRegQueueDescLow, 0xfffff000);
  guest_.write(kRegQueueReady, 1);
  EXPECT_EQ(refused(), before + 2);
  EXPECT_TRUE(device_.queues[0].enabled());
  EXPECT_FALSE(guest_.needs_reset());
  guest_.write(kRegQueueReady, 0);
  EXPECT_EQ(guest_.read(kRegQueueReady), 0u);
  EXPECT_EQ(device_.stopped.back(), 0u);
}

TEST_F(MmioTest, QueuesThatDoNotExist) {
  ASSERT_TRUE(guest_.negotiate(0));
  for (const u32 index : {2u, 0xffffu, 0xffffffffu}) {
    guest_.write(kRegQueueSel, index);
    EXPECT_EQ(guest_.read(kRegQueueSizeMax), 0u);
    EXPECT_EQ(guest_.read(kRegQueueReady), 0u);
    guest_.write(kRegQueueSize, 4);
    guest_.write(kRegQueueReady, 1);
    guest_.write(kRegQueueNotify, index);
  }
  EXPECT_TRUE(device_.notified.empty());
}

TEST_F(MmioTest, ImpossibleQueueMakesItNeedAReset) {
  ASSERT_TRUE(guest_.negotiate(0));
  guest_.write(kRegQueueSel, 1);
  guest_.write(kRegQueueSize, 32);  // its largest is 16
  guest_.write(kRegQueueReady, 1);
  EXPECT_EQ(guest_.read(kRegQueueReady), 0u);
  EXPECT_TRUE(guest_.needs_reset());
  EXPECT_FALSE(irq_.level()) << "no driver yet to be told";
  EXPECT_EQ(mmio_.session().faults(Fault::kBadSetup), 1u);
  EXPECT_TRUE(guest_.bring_up(0, {}, 2, 16));
}

TEST_F(MmioTest, QueueBeforeFeaturesIsRefused) {
  guest_.set_up_queue(0, 8, {});
  EXPECT_EQ(guest_.read(kRegQueueReady), 0u);
}

TEST_F(MmioTest, NotificationsBeforeDriverOkAreIgnored) {
  ASSERT_TRUE(guest_.negotiate(0));
  guest_.set_up_queue(0, 8, {});
  guest_.write(kRegQueueNotify, 0);
  EXPECT_TRUE(device_.notified.empty());
}

TEST_F(MmioTest, InterruptIsALevelUntilAcknowledged) {
  ASSERT_TRUE(guest_.bring_up(0, {}, 2, 16));
  device_.host->interrupt_used();
  device_.host->interrupt_used();
  EXPECT_TRUE(irq_.level());
  device_.host->config_changed();
  EXPECT_EQ(guest_.read(kRegInterruptStatus), 3u);
  guest_.write(kRegInterruptAck, 1);
  EXPECT_TRUE(irq_.level()) << "the other cause is still there";
  guest_.write(kRegInterruptAck, 0xfffffffe);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(irq_.raised(), 1u);
  device_.host->interrupt_used();
  guest_.write(kRegStatus, 0);
  EXPECT_FALSE(irq_.level()) << "a reset takes interrupts back";
}

TEST_F(MmioTest, InterruptRacingAcknowledgeIsNeverLost) {
  ASSERT_TRUE(guest_.bring_up(0, {}, 2, 16));
  std::atomic<bool> stop{false};
  std::thread raiser{[&] {
    while (!stop) device_.host->interrupt_used();
  }};
  for (unsigned i = 0; i < 20000; ++i) guest_.write(kRegInterruptAck, 1);
  stop = true;
  raiser.join();
  EXPECT_EQ(guest_.read(kRegInterruptStatus) != 0, irq_.level());
}

TEST_F(MmioTest, ConfigGenerationMoves) {
  const u32 before = guest_.read(kRegConfigGeneration);
  device_.host->config_changed();
  EXPECT_NE(guest_.read(kRegConfigGeneration), before);
  EXPECT_FALSE(irq_.level()) << "nobody to tell before DRIVER_OK";
}

TEST_F(MmioTest, ConfigurationSpaceTakesEveryWidth) {
  EXPECT_EQ(mmio_.read(0x100, AccessSize::k1).value, 0x01u);
  EXPECT_EQ(mmio_.read(0x101, AccessSize::k2).value, 0x0302u);
  EXPECT_EQ(mmio_.read(0x100, AccessSize::k4).value, 0x04030201u);
  EXPECT_EQ(mmio_.read(0x100, AccessSize::k8).value, 0x060504030201u);
  EXPECT_EQ(mmio_.read(0xff8, AccessSize::k8).value, 0u);
  mmio_.write(0x108, 1, AccessSize::k8);
  EXPECT_EQ(device_.written_at, 8u);
  EXPECT_EQ(device_.written_bytes, 8u);
}

TEST_F(MmioTest, RegistersTakeAlignedWordsOnly) {
  for (const AccessSize size : {AccessSize::k1, AccessSize::k2, AccessSize::k8}) {
    EXPECT_FALSE(mmio_.read(0, size).handled);
    EXPECT_FALSE(mmio_.write(kRegStatus, 1, size).handled);
  }
  EXPECT_FALSE(mmio_.read(1, AccessSize::k4).handled);
  EXPECT_FALSE(mmio_.write(kRegStatus + 2, 1, AccessSize::k4).handled);
  EXPECT_EQ(guest_.status(), 0);
  EXPECT_EQ(refused(), 8u);
}

TEST(MmioHostEntropy, WholeRngGivesRandomBytes) {
  const GuestMemory memory = *GuestMemory::create_pc(4_MiB);
  HostEntropy source;
  VirtioRng rng{source};
  test::RecordingIrq irq;
  VirtioMmio mmio{rng, memory, irq};
  test::VirtioGuest guest{mmio, memory};
  ASSERT_TRUE(guest.bring_up(0, {true, true, true}, 1, 8));
  const Gpa at = guest.put(std::string(64, '\0'));
  guest.queue(0).add({{at, 64, true}});
  guest.kick(0);
  EXPECT_NE(guest.get(at, 64), std::string(64, '\0'));
}

// Registers that are shown in a page.
class ShownTest : public MmioTest {
 protected:
  ShownTest() {
    mmio_.set_page(page_.data(), [this] { ++changes_; });
  }
  u32 shown(u64 offset) const {
    u32 value = 0;
    std::memcpy(&value, page_.data() + offset, sizeof value);
    return value;
  }
  alignas(kPageSize) std::array<std::byte, kPageSize> page_{};
  int changes_ = 0;
};

TEST_F(ShownTest, PageFollowsTheRegisters) {
  EXPECT_EQ(shown(kRegMagic), kMagic);
  EXPECT_EQ(shown(kRegDeviceId), 42u);
  EXPECT_EQ(shown(kRegQueueSizeMax), 64u);
  EXPECT_EQ(shown(kRegConfig), 0x04030201u);
  guest_.write(kRegQueueSel, 1);
  EXPECT_EQ(shown(kRegQueueSizeMax), 16u);
  guest_.write(kRegStatus, 1);
  EXPECT_EQ(shown(kRegStatus), 1u);
}

TEST_F(ShownTest, UsedBuffersAreAnEdgeAndNothingToAcknowledge) {
  EXPECT_EQ(shown(kRegInterruptStatus), kInterruptUsed);
  device_.host->interrupt_used();
  device_.host->interrupt_used();
  EXPECT_EQ(irq_.raised(), 2u);
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(changes_, 0);
  guest_.write(kRegInterruptAck, kInterruptUsed);
  EXPECT_EQ(shown(kRegInterruptStatus), kInterruptUsed);
}

TEST_F(ShownTest, AChangedConfigurationIsShownBeforeItIsTold) {
  guest_.write(kRegStatus, kStatusAcknowledge | kStatusDriver);
  guest_.write(kRegDriverFeaturesSel, 1);
  guest_.write(kRegDriverFeatures, static_cast<u32>(kFeatureVersion1 >> 32));
  guest_.write(kRegStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  guest_.write(kRegStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
  device_.host->config_changed();
  EXPECT_EQ(changes_, 1);
  EXPECT_EQ(irq_.raised(), 0u);  // whoever refreshes drives the line then
  mmio_.refresh_page();
  EXPECT_EQ(shown(kRegInterruptStatus), kInterruptUsed | kInterruptConfig);
  EXPECT_EQ(shown(kRegConfigGeneration), mmio_.session().config_generation());
  guest_.write(kRegInterruptAck, kInterruptUsed | kInterruptConfig);
  EXPECT_EQ(shown(kRegInterruptStatus), kInterruptUsed);
}

}  // namespace
}  // namespace bulkhead::device::virtio
