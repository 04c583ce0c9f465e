#include "engine/choose.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace bulkhead::engine {
namespace {

namespace fs = std::filesystem;
using B = VirtBackend;
using E = EngineKind;

HostEngines host(bool kvm, bool mshv, bool xen) {
  return {{HostEngine{E::kKvm, kvm, kvm ? "kvm-is-there" : "no-kvm"},
           HostEngine{E::kMshv, mshv, mshv ? "mshv-is-there" : "no-mshv"},
           HostEngine{E::kXen, xen, xen ? "xen-is-there" : "no-xen"}, HostEngine{E::kDbt, true, "always"}}};
}

struct Case {
  const char* name;
  B backend;
  std::optional<E> engine;
  HostEngines host;
  std::optional<E> chosen;  // nothing: refused
  const char* said;         // part of the reason or of the error
};
class Choose : public ::testing::TestWithParam<Case> {};

TEST_P(Choose, FollowsTheRule) {
  const Case& c = GetParam();
  const auto choice = choose({c.backend, c.engine}, c.host);
  ASSERT_EQ(choice.has_value(), c.chosen.has_value()) << (choice ? choice->reason : choice.error().message);
  const std::string text = choice ? choice->reason : choice.error().message;
  EXPECT_TRUE(text.contains(c.said)) << text;
  EXPECT_FALSE(text.contains('\n'));
  if (!choice) return;
  EXPECT_EQ(choice->engine, *c.chosen);
  EXPECT_EQ(choice->backend, B::kPvh);
}

const HostEngines kBare = host(false, false, false), kKvm = host(true, false, false), kMshv = host(false, true, false),
                  kXen = host(false, false, true);
INSTANTIATE_TEST_SUITE_P(
    Table, Choose,
    ::testing::Values(Case{"AutoOnABareHost", B::kAuto, {}, kBare, E::kDbt, "virt backend pv is not built yet"},
                      Case{"AutoWithKvm", B::kAuto, {}, kKvm, E::kDbt, "this build has no kvm engine yet"},
                      Case{"AutoWithMshv", B::kAuto, {}, kMshv, E::kDbt, "this build has no mshv engine yet"},
                      Case{"AutoWithXen", B::kAuto, {}, kXen, E::kDbt, "this build has no xen engine yet"},
                      Case{"PvhOnABareHostNeverFallsBack", B::kPvh, {}, kBare, {}, "no-kvm; no-mshv; no-xen"},
                      Case{"PvhOnABareHostSaysHowToAsk", B::kPvh, {}, kBare, {}, "--engine dbt -V pvh"},
                      Case{"PvhWithKvm", B::kPvh, {}, kKvm, {}, "this build has no kvm engine yet"},
                      Case{"PvhOnDbtKnowingly", B::kPvh, E::kDbt, kBare, E::kDbt, "was asked for"},
                      Case{"DbtIsNotReplacedByKvm", B::kAuto, E::kDbt, kKvm, E::kDbt, "was asked for"},
                      Case{"KvmIsNotReplacedByDbt", B::kAuto, E::kKvm, kBare, {}, "no-kvm"},
                      Case{"KvmUsableButNotBuilt", B::kPvh, E::kKvm, kKvm, {}, "no kvm engine yet"},
                      Case{"XenAskedForElsewhere", B::kAuto, E::kXen, kKvm, {}, "no-xen"},
                      Case{"PvIsNotBuilt", B::kPv, {}, kBare, {}, "virt backend pv is not built yet"},
                      Case{"PvOnDbtIsNotBuiltEither", B::kPv, E::kDbt, kBare, {}, "not built yet"},
                      Case{"HvmIsNotBuilt", B::kHvm, E::kDbt, kBare, {}, "virt backend hvm is not built yet"}),
    [](const auto& one) { return one.param.name; });

TEST(ChooseNames, AreReadBack) {
  for (const B backend : {B::kAuto, B::kPv, B::kPvh, B::kHvm}) EXPECT_EQ(parse_backend(backend_name(backend)), backend);
  for (const E engine : {E::kKvm, E::kMshv, E::kXen, E::kDbt}) EXPECT_EQ(parse_engine(engine_name(engine)), engine);
  EXPECT_FALSE(parse_backend("PVH").has_value());
  EXPECT_FALSE(parse_engine("auto").has_value());
}

class ProbeHost : public ::testing::Test {
 protected:
  ProbeHost() {
    char pattern[] = "/tmp/bulkhead-probe-XXXXXX";
    root_ = ::mkdtemp(pattern);
    for (const char* const part : {"/dev", "/proc/xen", "/sys/hypervisor/properties"})
      fs::create_directories(root_ + part);
  }
  ~ProbeHost() override { fs::remove_all(root_); }
  void put(const std::string& path, const std::string& text) { std::ofstream{root_ + path} << text; }
  HostEngine probe(E kind) { return probe_host(root_).of(kind); }
  std::string root_;
};

TEST_F(ProbeHost, KvmNeedsTheDeviceAndTheHardware) {
  EXPECT_EQ(probe(E::kKvm).reason, "there is no /dev/kvm, and the CPU flags show neither VT-x nor AMD-V");
  put("/dev/kvm", "");
  put("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu de svme notvmx\n");
  EXPECT_FALSE(probe(E::kKvm).usable);
  EXPECT_TRUE(probe(E::kKvm).reason.contains("/dev/kvm opens, but"));
  put("/proc/cpuinfo", "flags\t\t: fpu svm de\n");
  EXPECT_TRUE(probe(E::kKvm).usable);
  EXPECT_TRUE(probe(E::kKvm).reason.contains("AMD-V"));
}

TEST_F(ProbeHost, MshvNeedsTheDevice) {
  EXPECT_EQ(probe(E::kMshv).reason, "there is no /dev/mshv");
  put("/dev/mshv", "");
  EXPECT_TRUE(probe(E::kMshv).usable);
}

TEST_F(ProbeHost, XenNeedsControlAndHvm) {
  EXPECT_TRUE(probe(E::kXen).reason.contains("not a Xen host"));
  put("/sys/hypervisor/type", "xen\n");
  EXPECT_TRUE(probe(E::kXen).reason.contains("control_d"));
  put("/proc/xen/capabilities", "control_d\n");
  put("/sys/hypervisor/properties/capabilities", "xen-3.0-x86_64\n");
  EXPECT_TRUE(probe(E::kXen).reason.contains("neither hvm nor hap"));
  put("/sys/hypervisor/properties/capabilities", "xen-3.0-x86_64 hvm-3.0-x86_64\n");
  EXPECT_TRUE(probe(E::kXen).usable);
}

TEST_F(ProbeHost, DbtIsAlwaysThere) { EXPECT_TRUE(probe(E::kDbt).usable); }

}  // namespace
}  // namespace bulkhead::engine
