#include "engine/kvm/host.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "engine/kvm/cpuid.h"
#include "engine/probe.h"

namespace bulkhead::engine::kvm {
namespace {

struct HostFile : testing::Test {
  HostFile() { std::filesystem::create_directories(folder); }
  ~HostFile() override { std::filesystem::remove_all(folder); }
  const std::string folder = testing::TempDir() + "kvm-host-" + std::to_string(::getpid());
  const std::string path = folder + "/kvm";
};

TEST_F(HostFile, NoDeviceIsSaidInOneLine) {
  const auto host = KvmHost::open(path);
  ASSERT_FALSE(host);
  EXPECT_TRUE(host.error().message.starts_with("there is no " + path)) << host.error().message;
  EXPECT_EQ(host.error().message.find('\n'), std::string::npos);
}

TEST_F(HostFile, AnotherDeviceIsNotKvm) {
  std::ofstream{path} << "x";
  const auto host = KvmHost::open(path);
  ASSERT_FALSE(host);
  EXPECT_TRUE(host.error().message.contains("is not KVM")) << host.error().message;
}

TEST_F(HostFile, AFolderDoesNotOpen) {
  const auto host = KvmHost::open(folder);
  ASSERT_FALSE(host);
  EXPECT_TRUE(host.error().message.contains("does not open")) << host.error().message;
}

TEST_F(HostFile, SaysWhoMayOpenIt) {
  std::ofstream{path} << "x";
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  EXPECT_EQ(who_may_open(path), "root");
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file to another group";
  ASSERT_EQ(::chmod(path.c_str(), 0660), 0);
  ASSERT_EQ(::chown(path.c_str(), 0, 54321), 0);
  EXPECT_EQ(who_may_open(path), "root and members of the group 54321");
}

TEST(KvmCpuid, EveryVcpuHasItsNumbers) {
  CpuModel model;
  model.leaves = {{1, 0, 0, 0x0800, 0, 0}, {0xb, 0, 0, 1, 0, 0}, {0xb, 1, 1, 2, 0, 0}, {0x40000004, 0, 8, 0, 1, 0}};
  model.vcpu_number_leaf = 0x40000004;
  const auto entries = cpuid_entries(model, 3);
  EXPECT_EQ(entries[0].ebx >> 24, 3u);
  EXPECT_EQ(entries[0].ebx & 0xffffff, 0x0800u);
  EXPECT_EQ(entries[0].flags, 0u);
  EXPECT_EQ(entries[1].edx, 3u);
  EXPECT_EQ(entries[2].edx, 3u);
  EXPECT_EQ(entries[2].flags, static_cast<u32>(KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
  EXPECT_EQ(entries[3].ebx, 3u);
}

TEST(KvmCpuid, LeavesThatComeInSeveralAreToldApart) {
  CpuModel model;
  model.leaves = {{0x40000003, 0, 1, 0, 0, 0}, {0x40000003, 1, 2, 0, 0, 0}};
  for (const auto& entry : cpuid_entries(model, 0))
    EXPECT_EQ(entry.flags, static_cast<u32>(KVM_CPUID_FLAG_SIGNIFCANT_INDEX));
}

}  // namespace
}  // namespace bulkhead::engine::kvm
