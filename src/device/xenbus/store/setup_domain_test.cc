#include "device/xenbus/store/setup_domain.h"

#include "device/xenbus/store/fixture.h"
#include "device/xenbus/store/path.h"

namespace bulkhead::device::xenbus::store {
namespace {

std::string shown(Session& session, const std::string& path) {
  std::string line = session.read(0, path).value_or("?") + " ";
  const Reply<Permissions> permissions = session.permissions(0, path);
  for (const Permission permission : permissions.value_or(Permissions{})) line += format_permission(permission);
  return line;
}

class SetupDomain : public ::testing::Test {
 protected:
  Store store;
  Ear ear;
  std::unique_ptr<Session> zero = store.connect(kDomainZero, ear);
  DomainDescription domain = a_domain(1);
};

// What xenstore-ls -fp shows of a paused domU that xl of Xen 4.17 has made.
TEST_F(SetupDomain, LooksAsXlMakesIt) {
  domain.store = RingPlace{1, 519169};
  domain.console = RingPlace{2, 519170};
  ASSERT_TRUE(setup_domain(store, domain));
  const std::pair<const char*, const char*> expected[] = {
      {"", " n0r1"},
      {"/vm", "/vm/00000000-0000-0000-0000-000000000001 n0r1"},
      {"/name", "zone1 n0r1"},
      {"/cpu/0/availability", "online n0r1"},
      {"/cpu/1/availability", "online n0r1"},
      {"/memory/static-max", "262144 n0r1"},
      {"/memory/target", "262144 n0r1"},
      {"/memory/videoram", "0 n0r1"},
      {"/device", " n0r1"},
      {"/device/suspend", " n0r1"},
      {"/device/suspend/event-channel", " n1"},
      {"/control", " n0r1"},
      {"/control/shutdown", " n1"},
      {"/control/feature-poweroff", " n1"},
      {"/control/feature-reboot", " n1"},
      {"/control/feature-suspend", " n1"},
      {"/control/sysrq", " n1"},
      {"/control/platform-feature-multiprocessor-suspend", "1 n0r1"},
      {"/control/platform-feature-xs_reset_watches", "1 n0r1"},
      {"/data", " n1"},
      {"/drivers", " n1"},
      {"/feature", " n1"},
      {"/attr", " n1"},
      {"/error", " n1"},
      {"/domid", "1 n0r1"},
      {"/store/port", "1 n0r1"},
      {"/store/ring-ref", "519169 n0r1"},
      {"/console", " n0r1"},
      {"/console/backend", "/local/domain/0/backend/console/1/0 n0r1"},
      {"/console/backend-id", "0 n1r0"},
      {"/console/limit", "1048576 n0r1"},
      {"/console/type", "xenconsoled n0r1"},
      {"/console/output", "pty n0r1"},
      {"/console/port", "2 n0r1"},
      {"/console/ring-ref", "519170 n0r1"},
  };
  for (const auto& [path, line] : expected) EXPECT_EQ(shown(*zero, home_of(1) + path), line) << path;
  EXPECT_EQ(shown(*zero, "/local/domain/0/backend/console/1"), " n0");
  EXPECT_EQ(shown(*zero, "/local/domain/0/backend/console/1/0/state"), "1 n0r1");
  EXPECT_EQ(shown(*zero, "/vm/00000000-0000-0000-0000-000000000001/uuid"), "00000000-0000-0000-0000-000000000001 n0r1");
  EXPECT_EQ(shown(*zero, "/libxl/1/type"), "pv n0");
}

TEST_F(SetupDomain, SparesAreOffline) {
  domain.maximum_vcpus = 3;
  domain.maximum_kib = 1 << 20;
  domain.type = "pvh";
  ASSERT_TRUE(setup_domain(store, domain));
  EXPECT_EQ(zero->read(0, home_of(1) + "/cpu/1/availability"), "online");
  EXPECT_EQ(zero->read(0, home_of(1) + "/cpu/2/availability"), "offline");
  EXPECT_EQ(zero->read(0, home_of(1) + "/memory/static-max"), "1048576");
  EXPECT_FALSE(zero->read(0, home_of(1) + "/console"));
  EXPECT_FALSE(zero->read(0, "/vm/" + domain.uuid + "/image"));
}

TEST_F(SetupDomain, BadOrSecondOnesAreErrors) {
  DomainDescription bad = domain;
  bad.uuid = "no path/";
  EXPECT_FALSE(setup_domain(store, bad));
  EXPECT_FALSE(zero->read(0, home_of(1)));  // nothing of it
  EXPECT_TRUE(setup_domain(store, domain));
  EXPECT_FALSE(setup_domain(store, domain));
}

TEST_F(SetupDomain, RemovedItLeavesNothing) {
  domain.console = RingPlace{2, 3};
  ASSERT_TRUE(setup_domain(store, domain));
  ASSERT_TRUE(zero->write(0, "/local/domain/0/backend/vbd/1/51712/state", "4"));
  remove_domain(store, domain);
  for (const std::string path :
       {"/local/domain/1", "/libxl/1", "/local/domain/0/backend/vbd/1", "/local/domain/0/backend/console/1"})
    EXPECT_FALSE(zero->read(0, path)) << path;
  EXPECT_TRUE(zero->list(0, "/vm")->names.empty());
  EXPECT_EQ(store.usage(1).nodes, 0);
  EXPECT_EQ(store.usage(1).bytes, 0);
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
