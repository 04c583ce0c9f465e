#include "zone/kernel/kernel_store.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;

TEST(KernelStore, PackageNames) {
  EXPECT_EQ(kernel_package("cloud").value(), "linux-image-cloud-amd64");
  EXPECT_EQ(kernel_package("generic").value(), "linux-image-amd64");
  EXPECT_EQ(kernel_package("6.1.0-43-amd64").value(), "linux-image-6.1.0-43-amd64");
  EXPECT_EQ(kernel_package("linux-image-rt-amd64").value(), "linux-image-rt-amd64");
  for (const char* const bad : {"", "-o", "a b", "a;b", "../x"}) EXPECT_FALSE(kernel_package(bad)) << bad;
}

TEST(KernelStore, MetaPackagesNameTheirKernel) {
  EXPECT_EQ(
      kernel_dependency("Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-43-cloud-amd64 (= 6.1.162-1)\n"),
      "linux-image-6.1.0-43-cloud-amd64");
  EXPECT_EQ(
      kernel_dependency("Package: linux-image-6.1.0-43-amd64\nDepends: kmod, initramfs-tools | linux-initramfs-tool\n"),
      "");
  EXPECT_EQ(kernel_dependency(""), "");
}

TEST(KernelStore, VersionsAreOrderedAsVersions) {
  EXPECT_TRUE(newer("6.12.95-cloud", "6.1.0-43-cloud"));
  EXPECT_TRUE(newer("6.1.0-43-cloud", "6.1.0-9-cloud"));
  EXPECT_FALSE(newer("6.1.0-9", "6.1.0-9"));
}

class StoredKernels : public ::testing::Test {
 protected:
  StoredKernels() {
    char pattern[] = "/tmp/bulkhead-kernels-XXXXXX";
    root_ = ::mkdtemp(pattern);
  }
  ~StoredKernels() override { fs::remove_all(root_); }
  void store(const std::string& release) {
    fs::create_directories(root_ + "/kernels/" + release + "/boot");
    std::ofstream{root_ + "/kernels/" + release + "/boot/vmlinuz-" + release} << "kernel";
  }
  Result<KernelImage> resolve(const std::string& wanted) {
    Cache cache = Cache::open_at(root_).value();
    Progress progress{Progress::Show::kNever};
    Workshop workshop{progress};
    return resolve_kernel(wanted, cache, workshop);
  }
  std::string root_;
};

TEST_F(StoredKernels, NewestCloudKernelIsTheDefault) {
  for (const char* const release : {"6.1.0-9-cloud-amd64", "6.1.0-43-cloud-amd64", "6.12.1-amd64"}) store(release);
  fs::create_directories(root_ + "/kernels/.making-x");
  EXPECT_TRUE(resolve("").value().path.ends_with("vmlinuz-6.1.0-43-cloud-amd64"));
  EXPECT_TRUE(resolve("generic").value().path.ends_with("vmlinuz-6.12.1-amd64"));
  EXPECT_TRUE(resolve("6.1.0-9-cloud-amd64").value().path.ends_with("vmlinuz-6.1.0-9-cloud-amd64"));
  EXPECT_EQ(list_kernels(Cache::open_at(root_).value()).size(), 3u);
}

TEST_F(StoredKernels, UnknownNameSaysWhatToDo) {
  EXPECT_TRUE(resolve("5.0").error().message.contains("bulkhead kernel fetch 5.0"));
  EXPECT_FALSE(resolve("/no/such/file"));
}

}  // namespace
}  // namespace bulkhead::zone
