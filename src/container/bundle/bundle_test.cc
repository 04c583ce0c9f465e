#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sys/mount.h>

#include <nlohmann/json.hpp>

#include "container/bundle/names.h"
#include "container/bundle/read_spec.h"
#include "container/bundle/resources.h"

namespace bulkhead::container {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

// The least that is a container.
Json least() {
  return Json::parse(R"({
    "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/run/netns/a"}]}
  })");
}

std::string refusal(const Json& spec) {
  const auto read = read_spec(spec.dump(), "c");
  return read ? "accepted" : read.error().message;
}

TEST(ReadSpec, TheLeast) {
  const auto read = read_spec(least().dump(), "c1");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->container.name(), "c1");
  EXPECT_EQ(read->container.root(), "c1/root");
  EXPECT_EQ(read->root, "rootfs");
  EXPECT_EQ(read->net_space, "/run/netns/a");
  EXPECT_EQ(read->role, Bundle::Role::kAlone);
  EXPECT_EQ(read->container.pid_namespace().kind(), pod::Namespace::OWN);
  EXPECT_EQ(read->container.ipc_namespace().kind(), pod::Namespace::ZONE);
  EXPECT_EQ(read->container.devices_size(), 6);
}

TEST(ReadSpec, AMemberJoinsItsSandbox) {
  Json spec = least();
  spec["annotations"] = {{"io.kubernetes.cri.container-type", "container"}, {"io.kubernetes.cri.sandbox-id", "s1"}};
  spec["linux"]["namespaces"][1]["path"] = "/proc/77/ns/pid";
  const auto read = read_spec(spec.dump(), "c1");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->role, Bundle::Role::kMember);
  EXPECT_EQ(read->sandbox, "s1");
  EXPECT_EQ(read->container.pid_namespace().container(), "s1");
}

TEST(ReadSpec, VolumesAreShownAndMemoryIsTheZones) {
  Json spec = least();
  spec["mounts"] = Json::parse(R"([
    {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro", "rprivate"]},
    {"destination": "/dev/shm", "type": "bind", "source": "/run/x/shm", "options": ["rbind"]},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64m", "mode=1777"]}])");
  const auto read = read_spec(spec.dump(), "c1");
  ASSERT_TRUE(read) << read.error().message;
  ASSERT_EQ(read->shared.size(), 1u);
  EXPECT_EQ(read->shared[0].source, "/srv/data");
  EXPECT_EQ(read->container.mounts(0).source(), read->shared[0].place);
  EXPECT_EQ(read->container.mounts(0).flags(), u64{MS_RDONLY | MS_REC});
  EXPECT_EQ(read->container.mounts(1).source(), "/dev/shm");
  EXPECT_EQ(read->container.mounts(2).data(), "size=64m,mode=1777");
}

TEST(ReadSpec, RefusesWhatIsNoContainer) {
  EXPECT_THAT(read_spec("", "c").error().message, HasSubstr("no JSON object"));
  EXPECT_THAT(read_spec("[1,2]", "c").error().message, HasSubstr("no JSON object"));
  EXPECT_THAT(read_spec("{\"process\": {\"args\": [", "c").error().message, HasSubstr("no JSON object"));
  EXPECT_THAT(refusal(Json::object()), HasSubstr("process.args"));
  struct Case {
    const char* pointer;
    Json value;
    const char* why;
  };
  const Case cases[] = {
      {"/process/args", Json::array(), "process.args"},
      {"/process/args", 5, "process.args"},
      {"/process/args/0", 5, "type must be string"},
      {"/process/cwd", "tmp", "process.cwd"},
      {"/process/user/uid", "root", "type must be number"},
      {"/process/capabilities", {{"bounding", {"CAP_FLY"}}}, "CAP_FLY"},
      {"/process/rlimits", Json::parse(R"([{"type": "RLIMIT_LUCK", "soft": 1, "hard": 1}])"), "RLIMIT_LUCK"},
      {"/mounts", Json::parse(R"([{"destination": "data"}])"), "no absolute path"},
      {"/mounts", Json::parse(R"([{"destination": "/a", "type": "bind", "source": "../b"}])"), "no absolute path"},
      {"/linux/namespaces", Json::array(), "mount namespace"},
      {"/linux/namespaces/0/type", "user", "user namespace"},
      {"/linux/namespaces/2/type", "ipc", "hostNetwork"},
      {"/linux/seccomp", {{"defaultAction", "SCMP_ACT_DANCE"}}, "SCMP_ACT_DANCE"},
      {"/linux/seccomp", {{"defaultAction", "SCMP_ACT_ERRNO"}, {"listenerPath", "/x"}}, "listener"},
      {"/linux/resources", {{"memory", {{"limit", 200}, {"swap", 100}}}}, "swap"},
      {"/linux/resources", {{"memory", {{"limit", "much"}}}}, "type must be number"},
      {"/hooks", Json::parse(R"({"startContainer": [{"path": "bin/x"}]})"), "no absolute path"},
      {"/hooks", Json::parse(R"({"createRuntime": [{"path": "/bin/x"}]})"), "hooks.createRuntime"},
      {"/annotations",
       {{"io.kubernetes.cri.container-type", "container"}, {"io.kubernetes.cri.sandbox-id", "../x"}},
       "names no sandbox"},
  };
  for (const Case& one : cases) {
    Json spec = least();
    spec[Json::json_pointer{one.pointer}] = one.value;
    EXPECT_THAT(refusal(spec), HasSubstr(one.why)) << one.pointer << " " << one.value;
  }
}

TEST(ReadSpec, AFilterIsCompiledAndUnknownCallsArePassedOver) {
  Json spec = least();
  spec["linux"]["seccomp"] = Json::parse(R"({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                 {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                  "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]})");
  const auto read = read_spec(spec.dump(), "c");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_GT(read->container.seccomp().size(), sizeof(sock_filter));
  EXPECT_EQ(read->container.seccomp().size() % sizeof(sock_filter), 0u);
}

TEST(MountOptions, WordsClearAndUnknownOnesAreData) {
  const MountOptions read = mount_options({"ro", "nosuid", "rw", "size=1m", "rshared", "rbind", "mode=700"});
  EXPECT_EQ(read.flags, u64{MS_NOSUID | MS_REC});
  EXPECT_EQ(read.propagation, u64{MS_SHARED | MS_REC});
  EXPECT_EQ(read.data, "size=1m,mode=700");
  EXPECT_TRUE(read.bind);
}

TEST(Names, NumbersAreTheKernels) {
  EXPECT_EQ(capability_number("CAP_CHOWN"), 0u);
  EXPECT_EQ(capability_number("CAP_SYS_ADMIN"), 21u);
  EXPECT_EQ(capability_number("CAP_CHECKPOINT_RESTORE"), 40u);
  EXPECT_EQ(capability_number("SYS_ADMIN"), std::nullopt);
  EXPECT_EQ(rlimit_number("RLIMIT_NOFILE"), 7u);
  EXPECT_EQ(rlimit_number("NOFILE"), std::nullopt);
}

TEST(Resources, OfVersionOneAsVersionTwo) {
  Settings settings;
  ASSERT_TRUE(add_settings_from(R"({"memory": {"limit": 1000, "swap": 3000}, "cpu": {"shares": 1024, "quota": 50000,
    "period": 100000}, "pids": {"limit": -1}, "unified": {"memory.high": "900"}})",
                                settings));
  std::map<std::string, std::string> files;
  for (const pod::Setting& one : settings) files[one.file()] = one.value();
  EXPECT_EQ(files["memory.max"], "1000");
  EXPECT_EQ(files["memory.swap.max"], "2000");
  EXPECT_EQ(files["cpu.weight"], "39");
  EXPECT_EQ(files["cpu.max"], "50000 100000");
  EXPECT_EQ(files["pids.max"], "max");
  EXPECT_EQ(files["memory.high"], "900");
  EXPECT_FALSE(add_settings_from("nothing", settings));
}

struct WishCase {
  Annotations annotations;
  const char* expected;  // "backend engine cpus MiB", or a part of the refusal
};

TEST(Annotations, EachValueAndEachRefusal) {
  const WishCase cases[] = {
      {{}, "auto auto 1 512"},
      {{{"dev.edera/virt-backend", "pv"}}, "pv auto 1 512"},
      {{{"bulkhead.dev/virt-backend", "pvh"}}, "pvh auto 1 512"},
      {{{"bulkhead.dev/virt-backend", "pv"}, {"dev.edera/virt-backend", "pv"}}, "pv auto 1 512"},
      {{{"bulkhead.dev/virt-backend", "pv"}, {"dev.edera/virt-backend", "pvh"}}, "ask for different things"},
      {{{"bulkhead.dev/virt-backend", "PV"}},
       "annotation bulkhead.dev/virt-backend: \"PV\" is not allowed; it must be auto, pv or pvh"},
      {{{"dev.edera/virt-backend", ""}}, "annotation dev.edera/virt-backend: \"\" is not allowed"},
      {{{"bulkhead.dev/engine", "dbt"}}, "auto dbt 1 512"},
      {{{"bulkhead.dev/engine", "qemu"}}, "it must be auto, kvm, mshv, xen or dbt"},
      {{{"bulkhead.dev/cpus", "4"}}, "auto auto 4 512"},
      {{{"bulkhead.dev/cpus", "0"}}, "a whole number from 1 to 8"},
      {{{"bulkhead.dev/cpus", "2.5"}}, "annotation bulkhead.dev/cpus: \"2.5\" is not allowed"},
      {{{"bulkhead.dev/cpus", "-1"}}, "is not allowed"},
      {{{"bulkhead.dev/cpus", "9"}}, "is not allowed"},
      {{{"bulkhead.dev/memory", "1Gi"}}, "auto auto 1 1024"},
      {{{"bulkhead.dev/memory", "268435456"}}, "auto auto 1 256"},
      {{{"bulkhead.dev/memory", "1G"}}, "auto auto 1 954"},
      {{{"bulkhead.dev/memory", "100Mi"}}, "annotation bulkhead.dev/memory: \"100Mi\" is not allowed"},
      {{{"bulkhead.dev/memory", "1Gib"}}, "a quantity from 128Mi to 4Ti"},
      {{{"bulkhead.dev/memory", "99999999999Ti"}}, "is not allowed"},
      {{{"io.kubernetes.cri.sandbox-memory", "268435456"}}, "auto auto 1 384"},
      {{{"io.kubernetes.cri.sandbox-memory", "268435456"}, {"bulkhead.dev/memory", "1Gi"}}, "auto auto 1 1024"},
      {{{"io.kubernetes.cri.sandbox-memory", "0"}}, "auto auto 1 512"},
      {{{"io.kubernetes.cri.sandbox-cpu-quota", "150000"}, {"io.kubernetes.cri.sandbox-cpu-period", "100000"}},
       "auto auto 2 512"},
      {{{"io.kubernetes.cri.sandbox-cpu-quota", "-1"}, {"io.kubernetes.cri.sandbox-cpu-period", "100000"}},
       "auto auto 1 512"},
  };
  for (const WishCase& one : cases) {
    const auto wish = zone_wish(one.annotations, limits_of(one.annotations));
    const std::string told =
        wish ? fmt::format("{} {} {} {}", wish->backend, wish->engine, wish->cpus, wish->memory / 1_MiB)
             : wish.error().message;
    EXPECT_THAT(told, HasSubstr(one.expected));
  }
}

TEST(Place, IsReadWithoutTheRest) {
  const auto sandbox = read_place(R"({"annotations": {"io.kubernetes.cri.container-type": "sandbox"}})");
  ASSERT_TRUE(sandbox);
  EXPECT_EQ(sandbox->role, Bundle::Role::kSandbox);
  EXPECT_FALSE(read_place(R"({"annotations": {"io.kubernetes.cri.container-type": "container"}})"));
  EXPECT_FALSE(read_place(R"({"annotations": {"io.kubernetes.cri.container-type": 5}})"));
  EXPECT_EQ(read_place("{}")->role, Bundle::Role::kAlone);
}

}  // namespace
}  // namespace bulkhead::container
