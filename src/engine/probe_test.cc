#include "engine/probe.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/testing/host_folder.h"

namespace bulkhead::engine {
namespace {

using E = EngineKind;
using testing::HostFolder;

TEST(ProbeHost, KvmNeedsTheDeviceAndTheHardware) {
  HostFolder host;
  EXPECT_EQ(host.probe(E::kKvm).reason, "there is no /dev/kvm, and the CPU flags show no VT-x/AMD-V");
  host.flags("svm");
  EXPECT_EQ(host.probe(E::kKvm).reason, "there is no /dev/kvm");
  host.put("/dev/kvm");
  EXPECT_TRUE(host.probe(E::kKvm).usable);
  EXPECT_EQ(host.probe(E::kKvm).reason, "/dev/kvm opens and the CPU flags show AMD-V");
  host.flags("vmx");
  EXPECT_EQ(host.probe(E::kKvm).reason, "/dev/kvm opens and the CPU flags show VT-x");
}

// The device file alone is not proof.
TEST(ProbeHost, KvmWithoutHardwareUnderItIsNotUsable) {
  HostFolder host;
  host.put("/dev/kvm").flags("svme notvmx hypervisor");
  EXPECT_FALSE(host.probe(E::kKvm).usable);
  EXPECT_EQ(host.probe(E::kKvm).reason,
            "/dev/kvm opens but has no VT-x/AMD-V under it, so it counts as not usable for auto and pvh");
}

TEST(ProbeHost, CpuInfoMayBeJunk) {
  HostFolder host;
  host.put("/dev/kvm");
  for (const char* const text : {"", "flags", "flags:", "flags vmx", "\n\n", "model name : vmx svm\n"})
    EXPECT_FALSE(host.put("/proc/cpuinfo", text).probe(E::kKvm).usable) << text;
}

// Root may open everything, so the test becomes somebody else for a moment.
TEST(ProbeHost, PermissionDeniedIsSaidWithWhatToDo) {
  HostFolder host;
  host.put("/dev/kvm").put("/dev/mshv").flags("vmx");
  ::chmod(host.path("").c_str(), 0755);
  for (const char* const device : {"/dev/kvm", "/dev/mshv"}) ::chmod(host.path(device).c_str(), 0);
  const bool root = ::geteuid() == 0;
  ASSERT_TRUE(!root || ::seteuid(65534) == 0);
  const HostEngines engines = host.probe();
  ASSERT_TRUE(!root || ::seteuid(0) == 0);
  for (const E kind : {E::kKvm, E::kMshv}) {
    EXPECT_FALSE(engines.of(kind).usable);
    EXPECT_TRUE(engines.of(kind).reason.contains("does not open: Permission denied (")) << engines.of(kind).reason;
  }
}

TEST(ProbeHost, WhatDoesNotOpenIsNotUsable) {
  HostFolder host;
  host.flags("vmx");
  std::filesystem::create_directories(host.path("/dev/kvm"));
  EXPECT_EQ(host.probe(E::kKvm).reason, "/dev/kvm does not open: Is a directory");
}

TEST(ProbeHost, MshvNeedsTheDevice) {
  HostFolder host;
  EXPECT_EQ(host.probe(E::kMshv).reason, "there is no /dev/mshv");
  EXPECT_TRUE(host.put("/dev/mshv").probe(E::kMshv).usable);
}

TEST(ProbeHost, XenNeedsControlOfTheHost) {
  HostFolder host;
  EXPECT_TRUE(host.probe(E::kXen).reason.contains("not a Xen host"));
  host.put("/sys/hypervisor/type", "xen\n");
  EXPECT_TRUE(host.probe(E::kXen).reason.contains("control_d"));
  host.put("/proc/xen/capabilities", "control_d\n");
  EXPECT_EQ(host.probe(E::kXen).reason, "this is a Xen host, but there is no /dev/xen/privcmd");
  EXPECT_FALSE(host.probe(E::kXen).carries_pv);
}

TEST(ProbeHost, XenNeedsHvmOrHapForHardwareButNotForPv) {
  HostFolder host;
  host.xen("xen-3.0-x86_64");
  EXPECT_EQ(host.probe(E::kXen).reason, "this Xen host's capabilities list neither hvm nor hap");
  EXPECT_TRUE(host.probe(E::kXen).carries_pv);
  EXPECT_TRUE(host.xen("xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_64").probe(E::kXen).usable);
  EXPECT_TRUE(host.xen("hap").probe(E::kXen).usable);
  EXPECT_FALSE(host.xen("hvm-3.0-x86_64").probe(E::kXen).carries_pv);  // a Xen built without PV
}

TEST(ProbeHost, DbtIsAlwaysThere) {
  EXPECT_TRUE(HostFolder{}.probe(E::kDbt).usable);
  EXPECT_TRUE(HostFolder{}.probe(E::kDbt).carries_pv);
}

}  // namespace
}  // namespace bulkhead::engine
