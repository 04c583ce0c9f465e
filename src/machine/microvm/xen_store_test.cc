// xenstore of a PVH zone: where the guest finds it, what it reads there, and guests that misuse the ring.
#include "machine/microvm/xen_store.h"

#include <gtest/gtest.h>
#include <xen/hvm/params.h>
#include <xen/io/xs_wire.h>

#include <cstring>

#include "base/fake_timers.h"
#include "machine/microvm/layout.h"
#include "tests/support/fake_engine.h"

namespace bulkhead::machine {
namespace {
using device::xenbus::StorePort;

struct XenStoreTest : ::testing::Test {
  GuestMemory memory = *GuestMemory::create({{Gpa{0}, 1_MiB}}, XenAbi::kPages);
  testing::FakePartition partition{2};
  FakeTimerService timers;
  XenAbi xen{{.name = "test", .leaves = {}, .tsc_hz = 1'000'000'000},
             2,
             partition,
             memory,
             timers,
             {.wake = [](unsigned) {}, .finish = [](const Outcome&) {}, .pulse_gsi = {}}};
  std::unique_ptr<XenStore> opened = *XenStore::open(xen, config());
  device::xenbus::store::DomainZero zero{opened->store(), XenAbi::kDomid};

  static MicrovmConfig config() {
    MicrovmConfig config;
    config.name = "web";
    config.vcpus = 2;
    config.memory_bytes = 64_MiB;
    return config;
  }
};

TEST_F(XenStoreTest, GuestIsToldOfStoreButOfNoConsole) {
  EXPECT_EQ(xen.domain().hvm_param(HVM_PARAM_STORE_PFN), layout::kXenStorePage.value >> 12);
  EXPECT_NE(xen.domain().hvm_param(HVM_PARAM_STORE_EVTCHN), 0u);
  EXPECT_EQ(xen.domain().hvm_param(HVM_PARAM_CONSOLE_PFN), 0u);
  EXPECT_EQ(xen.domain().hvm_param(HVM_PARAM_CONSOLE_EVTCHN), 0u);
}

TEST_F(XenStoreTest, DomainIsDescribed) {
  EXPECT_EQ(zero.read("/local/domain/1/name"), "web");
  EXPECT_EQ(zero.read("/local/domain/1/memory/target"), "65536");
  EXPECT_EQ(zero.read("/libxl/1/type"), "pvh");
  EXPECT_EQ(zero.read("/local/domain/1/console/port"), std::nullopt);
}

TEST_F(XenStoreTest, ShutdownIsAskedOnceTheGuestListens) {
  EXPECT_EQ(opened->control().request(ShutdownRequest::kPowerOff), Asked::kNobodyListens);
  zero.write("/local/domain/1/control/feature-poweroff", "1", StorePort::GuestAccess::kOwner);
  EXPECT_EQ(opened->control().request(ShutdownRequest::kPowerOff), Asked::kAsked);
  EXPECT_EQ(zero.read("/local/domain/1/control/shutdown"), "poweroff");
}

TEST_F(XenStoreTest, RingHasOneServer) {
  EXPECT_EQ(xen.domain().events().bind(static_cast<u32>(xen.domain().hvm_param(HVM_PARAM_STORE_EVTCHN)), [] {}),
            nullptr);  // taken
}

// The guest may write anything into the page, at any time: the zone still goes away cleanly.
TEST_F(XenStoreTest, NonsenseInTheRingDoesNotHang) {
  std::memset(xen.store_page(), 0xff, kPageSize);
  EXPECT_EQ(zero.read("/local/domain/1/name"), "web");
}

}  // namespace
}  // namespace bulkhead::machine
