// The rule as a table: every virt backend with every engine on every kind of host, for builds that have ever more.
#include "engine/choose.h"

#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "engine/testing/host_folder.h"

namespace bulkhead::engine {
namespace {

using B = VirtBackend;
using E = EngineKind;
using testing::HostFolder;

constexpr std::array kBackends = {B::kAuto, B::kPv, B::kPvh, B::kHvm};

// ---- hosts

struct Host {
  const char* name;
  const char* kind;  // the row of the table that speaks of it
  void (*furnish)(HostFolder&);
  const char* says = "";  // what a refusal for lack of this host's hardware has to name
};
const Host kHosts[] = {
    {"Nothing", "none", [](HostFolder&) {}, "there is no /dev/kvm"},
    {"KvmDeviceWithoutHardware", "none", [](HostFolder& h) { h.put("/dev/kvm").flags("hypervisor"); },
     "/dev/kvm opens but has no VT-x/AMD-V under it"},
    {"HardwareWithoutKvmDevice", "none", [](HostFolder& h) { h.flags("vmx"); }, "there is no /dev/kvm"},
    {"KvmDeviceThatDoesNotOpen", "none",
     [](HostFolder& h) {
       std::filesystem::create_directories(h.path("/dev/kvm"));
       h.flags("svm");
     },
     "/dev/kvm does not open"},
    {"XenDomainWithoutControl", "none", [](HostFolder& h) { h.put("/sys/hypervisor/type", "xen\n"); },
     "lacks control_d"},
    {"Kvm", "kvm", [](HostFolder& h) { h.put("/dev/kvm").flags("svm"); }},
    {"Mshv", "mshv", [](HostFolder& h) { h.put("/dev/mshv"); }},
    {"MshvAndKvmWithoutHardware", "mshv", [](HostFolder& h) { h.put("/dev/mshv").put("/dev/kvm").flags(""); }},
    {"KvmAndMshv", "both", [](HostFolder& h) { h.put("/dev/mshv").put("/dev/kvm").flags("vmx"); }},
    {"Xen", "xen", [](HostFolder& h) { h.xen("xen-3.0-x86_64 hvm-3.0-x86_64"); }},
    {"XenWithoutHvmAndHap", "xenpv", [](HostFolder& h) { h.xen("xen-3.0-x86_64"); }, "neither hvm nor hap"},
};

// ---- builds

Build pvh_on_dbt() { return Build{}.add(B::kPvh, E::kDbt); }
Build pv_too() { return pvh_on_dbt().add(B::kPv, E::kDbt); }
Build kvm_too() { return pv_too().add(B::kPvh, E::kKvm); }
Build everything() {
  Build build = pv_too().add(B::kPv, E::kXen);
  for (const B backend : {B::kPvh, B::kHvm})
    for (const E engine : {E::kKvm, E::kMshv, E::kXen, E::kDbt}) build.add(backend, engine);
  return build;
}

// ---- the tables: for a kind of host and an engine asked for, what -V auto, pv, pvh and hvm come to.
// Refusals: !hw   needs hardware virtualization, and says what is missing and how to ask for translation
//           !host the host cannot carry the engine asked for        !lacks this build has no such engine
//           !bk   this build has no such virt backend               !pair  pv does not go with that engine

struct Table {
  const char* name;
  Build (*build)();
  const char* rows;
};

// Before virt backend pv is done: auto has to make do, and says so.
constexpr const char* kPvhOnDbt = R"(
  none  auto  pvh/dbt  !bk  !hw      !bk
  none  kvm   !host    !bk  !host    !bk
  none  mshv  !host    !bk  !host    !bk
  none  xen   !host    !bk  !host    !bk
  none  dbt   pvh/dbt  !bk  pvh/dbt  !bk
  kvm   auto  pvh/dbt  !bk  !lacks   !bk
  kvm   kvm   !lacks   !bk  !lacks   !bk
  kvm   mshv  !host    !bk  !host    !bk
  kvm   xen   !host    !bk  !host    !bk
  kvm   dbt   pvh/dbt  !bk  pvh/dbt  !bk
  mshv  auto  pvh/dbt  !bk  !lacks   !bk
  mshv  kvm   !host    !bk  !host    !bk
  mshv  mshv  !lacks   !bk  !lacks   !bk
  mshv  xen   !host    !bk  !host    !bk
  mshv  dbt   pvh/dbt  !bk  pvh/dbt  !bk
  both  auto  pvh/dbt  !bk  !lacks   !bk
  both  kvm   !lacks   !bk  !lacks   !bk
  both  mshv  !lacks   !bk  !lacks   !bk
  both  xen   !host    !bk  !host    !bk
  both  dbt   pvh/dbt  !bk  pvh/dbt  !bk
  xen   auto  pvh/dbt  !bk  !lacks   !bk
  xen   kvm   !host    !bk  !host    !bk
  xen   mshv  !host    !bk  !host    !bk
  xen   xen   !lacks   !bk  !lacks   !bk
  xen   dbt   pvh/dbt  !bk  pvh/dbt  !bk
  xenpv auto  pvh/dbt  !bk  !hw      !bk
  xenpv kvm   !host    !bk  !host    !bk
  xenpv mshv  !host    !bk  !host    !bk
  xenpv xen   !lacks   !bk  !host    !bk
  xenpv dbt   pvh/dbt  !bk  pvh/dbt  !bk
)";

constexpr const char* kPvToo = R"(
  none  auto  pv/dbt   pv/dbt  !hw      !bk
  none  kvm   !host    !pair   !host    !bk
  none  mshv  !host    !pair   !host    !bk
  none  xen   !host    !host   !host    !bk
  none  dbt   pv/dbt   pv/dbt  pvh/dbt  !bk
  kvm   auto  pvh/dbt  pv/dbt  !lacks   !bk
  kvm   kvm   !lacks   !pair   !lacks   !bk
  kvm   mshv  !host    !pair   !host    !bk
  kvm   xen   !host    !host   !host    !bk
  kvm   dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  mshv  auto  pvh/dbt  pv/dbt  !lacks   !bk
  mshv  kvm   !host    !pair   !host    !bk
  mshv  mshv  !lacks   !pair   !lacks   !bk
  mshv  xen   !host    !host   !host    !bk
  mshv  dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  both  auto  pvh/dbt  pv/dbt  !lacks   !bk
  both  kvm   !lacks   !pair   !lacks   !bk
  both  mshv  !lacks   !pair   !lacks   !bk
  both  xen   !host    !host   !host    !bk
  both  dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  xen   auto  pvh/dbt  pv/dbt  !lacks   !bk
  xen   kvm   !host    !pair   !host    !bk
  xen   mshv  !host    !pair   !host    !bk
  xen   xen   !lacks   !lacks  !lacks   !bk
  xen   dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  xenpv auto  pv/dbt   pv/dbt  !hw      !bk
  xenpv kvm   !host    !pair   !host    !bk
  xenpv mshv  !host    !pair   !host    !bk
  xenpv xen   !lacks   !lacks  !host    !bk
  xenpv dbt   pv/dbt   pv/dbt  pvh/dbt  !bk
)";

constexpr const char* kKvmToo = R"(
  none  auto  pv/dbt   pv/dbt  !hw      !bk
  none  kvm   !host    !pair   !host    !bk
  none  mshv  !host    !pair   !host    !bk
  none  xen   !host    !host   !host    !bk
  none  dbt   pv/dbt   pv/dbt  pvh/dbt  !bk
  kvm   auto  pvh/kvm  pv/dbt  pvh/kvm  !bk
  kvm   kvm   pvh/kvm  !pair   pvh/kvm  !bk
  kvm   mshv  !host    !pair   !host    !bk
  kvm   xen   !host    !host   !host    !bk
  kvm   dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  mshv  auto  pvh/dbt  pv/dbt  !lacks   !bk
  mshv  kvm   !host    !pair   !host    !bk
  mshv  mshv  !lacks   !pair   !lacks   !bk
  mshv  xen   !host    !host   !host    !bk
  mshv  dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  both  auto  pvh/kvm  pv/dbt  pvh/kvm  !bk
  both  kvm   pvh/kvm  !pair   pvh/kvm  !bk
  both  mshv  !lacks   !pair   !lacks   !bk
  both  xen   !host    !host   !host    !bk
  both  dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  xen   auto  pvh/dbt  pv/dbt  !lacks   !bk
  xen   kvm   !host    !pair   !host    !bk
  xen   mshv  !host    !pair   !host    !bk
  xen   xen   !lacks   !lacks  !lacks   !bk
  xen   dbt   pvh/dbt  pv/dbt  pvh/dbt  !bk
  xenpv auto  pv/dbt   pv/dbt  !hw      !bk
  xenpv kvm   !host    !pair   !host    !bk
  xenpv mshv  !host    !pair   !host    !bk
  xenpv xen   !lacks   !lacks  !host    !bk
  xenpv dbt   pv/dbt   pv/dbt  pvh/dbt  !bk
)";

constexpr const char* kEverything = R"(
  none  auto  pv/dbt   pv/dbt  !hw       !hw
  none  kvm   !host    !pair   !host     !host
  none  mshv  !host    !pair   !host     !host
  none  xen   !host    !host   !host     !host
  none  dbt   pv/dbt   pv/dbt  pvh/dbt   hvm/dbt
  kvm   auto  pvh/kvm  pv/dbt  pvh/kvm   hvm/kvm
  kvm   kvm   pvh/kvm  !pair   pvh/kvm   hvm/kvm
  kvm   mshv  !host    !pair   !host     !host
  kvm   xen   !host    !host   !host     !host
  kvm   dbt   pvh/dbt  pv/dbt  pvh/dbt   hvm/dbt
  mshv  auto  pvh/mshv pv/dbt  pvh/mshv  hvm/mshv
  mshv  kvm   !host    !pair   !host     !host
  mshv  mshv  pvh/mshv !pair   pvh/mshv  hvm/mshv
  mshv  xen   !host    !host   !host     !host
  mshv  dbt   pvh/dbt  pv/dbt  pvh/dbt   hvm/dbt
  both  auto  pvh/kvm  pv/dbt  pvh/kvm   hvm/kvm
  both  kvm   pvh/kvm  !pair   pvh/kvm   hvm/kvm
  both  mshv  pvh/mshv !pair   pvh/mshv  hvm/mshv
  both  xen   !host    !host   !host     !host
  both  dbt   pvh/dbt  pv/dbt  pvh/dbt   hvm/dbt
  xen   auto  pvh/xen  pv/xen  pvh/xen   hvm/xen
  xen   kvm   !host    !pair   !host     !host
  xen   mshv  !host    !pair   !host     !host
  xen   xen   pvh/xen  pv/xen  pvh/xen   hvm/xen
  xen   dbt   pvh/dbt  pv/dbt  pvh/dbt   hvm/dbt
  xenpv auto  pv/xen   pv/xen  !hw       !hw
  xenpv kvm   !host    !pair   !host     !host
  xenpv mshv  !host    !pair   !host     !host
  xenpv xen   pv/xen   pv/xen  !host     !host
  xenpv dbt   pv/dbt   pv/dbt  pvh/dbt   hvm/dbt
)";

const Table kTables[] = {{"PvhOnDbt", &pvh_on_dbt, kPvhOnDbt},
                         {"PvToo", &pv_too, kPvToo},
                         {"KvmToo", &kvm_too, kKvmToo},
                         {"Everything", &everything, kEverything}};

// ---- the test

std::string outcome(const Result<EngineChoice>& choice) {
  if (choice) return fmt::format("{}/{}", backend_name(choice->backend), engine_name(choice->engine));
  const std::string& message = choice.error().message;
  if (message.contains("needs hardware virtualization, which this host lacks")) return "!hw";
  if (message.contains("cannot be used ")) return "!host";
  if (message.contains("does not go with the engine")) return "!pair";
  if (message.contains("is not built yet")) return "!bk";
  return message.contains("this build has no") ? "!lacks" : "!" + message;
}

// Whatever the table says, these hold.
void expect_no_lie(const EngineRequest& request, const HostEngines& host, const Build& build,
                   const Result<EngineChoice>& choice) {
  const std::string& text = choice ? choice->reason : choice.error().message;
  EXPECT_FALSE(text.empty());
  EXPECT_FALSE(text.contains('\n')) << text;
  if (!choice) return;
  EXPECT_TRUE(build.has(choice->backend, choice->engine));
  EXPECT_TRUE(host.of(choice->engine).usable || (choice->backend == B::kPv && host.of(choice->engine).carries_pv));
  EXPECT_EQ(choice->engine, request.engine.value_or(choice->engine)) << "an engine was replaced";
  EXPECT_TRUE(request.backend == B::kAuto || request.backend == choice->backend) << "a virt backend was replaced";
  EXPECT_FALSE(request.backend == B::kPvh && !request.engine && choice->engine == E::kDbt) << "translation, unasked";
}

class Choose : public ::testing::TestWithParam<std::tuple<Table, Host>> {
 protected:
  static int rows_of_this_host() {
    const auto& [table, host] = GetParam();
    HostFolder folder;
    host.furnish(folder);
    const HostEngines engines = folder.probe();
    std::istringstream lines{table.rows};
    int rows = 0;
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words{line};
      std::string kind, engine, expected;
      if (!(words >> kind >> engine) || kind != host.kind) continue;
      ++rows;
      for (const B backend : kBackends) {
        const EngineRequest request{backend, parse_engine(engine)};
        const auto choice = choose(request, engines, table.build());
        SCOPED_TRACE(fmt::format("-V {} --engine {}: {}", backend_name(backend), engine,
                                 choice ? choice->reason : choice.error().message));
        words >> expected;
        EXPECT_EQ(outcome(choice), expected);
        expect_no_lie(request, engines, table.build(), choice);
        if (expected != "!hw") continue;
        EXPECT_TRUE(choice.error().message.contains(host.says));
        EXPECT_TRUE(choice.error().message.contains("--engine dbt -V pvh"));
      }
    }
    return rows;
  }
};

TEST_P(Choose, FollowsTheRule) { EXPECT_EQ(rows_of_this_host(), 5) << "each host meets each engine and auto"; }

INSTANTIATE_TEST_SUITE_P(Table, Choose, ::testing::Combine(::testing::ValuesIn(kTables), ::testing::ValuesIn(kHosts)),
                         [](const auto& one) {
                           return std::string{std::get<0>(one.param).name} + "_" + std::get<1>(one.param).name;
                         });

TEST(ChooseReason, SaysWhyInWords) {
  HostFolder folder;
  folder.put("/dev/kvm");
  const std::string pv =
      "auto: no hardware engine is usable on this host (/dev/kvm opens but has no VT-x/AMD-V under it, so it counts as "
      "not usable for auto and pvh; there is no /dev/mshv; this is not a Xen host: /sys/hypervisor/type does not say "
      "xen), which means pv";
  EXPECT_EQ(choose({}, folder.probe(), pv_too())->reason, pv + " on dbt");
  EXPECT_EQ(choose({}, folder.probe(), pvh_on_dbt())->reason, pv + "; this build has no pv yet, so it is pvh on dbt");
  EXPECT_EQ(choose({B::kPv, {}}, folder.probe(), pv_too())->reason,
            "virt backend pv was asked for; dbt: needs no hardware, no kernel module and no privilege");
  folder.flags("svm");
  EXPECT_EQ(choose({}, folder.probe(), kvm_too())->reason,
            "auto: the hardware engine kvm is usable on this host, which means pvh: /dev/kvm opens and the CPU flags "
            "show AMD-V");
  EXPECT_TRUE(
      choose({}, folder.probe(), pv_too())->reason.ends_with("this build has no kvm engine yet, so it is pvh on dbt"));
}

// What is suggested has to work on the host.
TEST(ChooseReason, PvOnKvmIsSentToKvmOnlyWhereThatIsUsable) {
  HostFolder folder;
  EXPECT_TRUE(choose({B::kPv, E::kKvm}, folder.probe(), pv_too()).error().message.ends_with("use -V pv alone"));
  folder.put("/dev/kvm").flags("svm");
  EXPECT_TRUE(choose({B::kPv, E::kKvm}, folder.probe(), pv_too())
                  .error()
                  .message.ends_with("use -V pv alone, or --engine kvm -V pvh"));
}

TEST(ChooseNames, AreReadBack) {
  for (const B backend : kBackends) EXPECT_EQ(parse_backend(backend_name(backend)), backend);
  for (const E engine : {E::kKvm, E::kMshv, E::kXen, E::kDbt}) EXPECT_EQ(parse_engine(engine_name(engine)), engine);
  EXPECT_FALSE(parse_backend("PVH").has_value());
  EXPECT_FALSE(parse_engine("auto").has_value());
}

// Whatever is flipped in backend_is_built(), this build is one that the tables speak of.
TEST(ChooseBuild, OursIsInTheTables) {
  bool found = false;
  for (const Table& table : kTables) {
    bool same = true;
    for (const B backend : kBackends)
      for (const E engine : {E::kKvm, E::kMshv, E::kXen, E::kDbt})
        same &= table.build().has(backend, engine) == backend_is_built(backend, engine);
    found |= same;
  }
  EXPECT_TRUE(found);
  EXPECT_TRUE(engine_is_built(E::kDbt));
}

}  // namespace
}  // namespace bulkhead::engine
