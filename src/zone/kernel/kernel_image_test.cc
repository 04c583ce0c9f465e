#include "zone/kernel/kernel_image.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;

std::string made_up_bzimage(std::string_view version, u16 offset = 0x300) {
  std::string file(0x400 + 0x200, '\0');
  file.replace(0x202, 4, "HdrS");
  file[0x20E] = static_cast<char>(offset & 0xFF);
  file[0x20F] = static_cast<char>(offset >> 8);
  if (offset + 0x200u + version.size() < file.size()) file.replace(offset + 0x200u, version.size(), version);
  return file;
}

TEST(KernelImage, ReleaseOfABzImage) {
  EXPECT_EQ(kernel_release(made_up_bzimage("6.1.0-43-cloud-amd64 (debian-kernel@...) #1 SMP")), "6.1.0-43-cloud-amd64");
}

TEST(KernelImage, ReleaseOfAnElfKernel) {
  EXPECT_EQ(kernel_release("\177ELF.... Linux version %s ... Linux version 5.10.1-test (gcc)"), "5.10.1-test");
  EXPECT_EQ(kernel_release("\177ELF Linux version "), "");
}

TEST(KernelImage, NonsenseHasNoRelease) {
  EXPECT_EQ(kernel_release(""), "");
  EXPECT_EQ(kernel_release(std::string(0x20F, 'H')), "");
  EXPECT_EQ(kernel_release(made_up_bzimage("x", 0xFFFF)), "");
  EXPECT_EQ(kernel_release(made_up_bzimage("../../etc x")), "");
  EXPECT_EQ(kernel_release(made_up_bzimage("..")), "");
}

TEST(KernelImage, ModulesAreFoundBesideTheKernel) {
  char pattern[] = "/tmp/bulkhead-kernel-XXXXXX";
  const std::string root = ::mkdtemp(pattern);
  fs::create_directories(root + "/boot");
  fs::create_directories(root + "/lib/modules/1.2.3/kernel");
  std::ofstream{root + "/boot/vmlinuz"} << made_up_bzimage("1.2.3 x");
  const auto image = inspect_kernel(root + "/boot/vmlinuz");
  ASSERT_TRUE(image);
  EXPECT_EQ(image->modules_folder, root + "/lib/modules/1.2.3");
  EXPECT_TRUE(inspect_kernel(root).error().message.contains("is a folder"));
  EXPECT_TRUE(inspect_kernel(root + "/nothing").error().message.contains("there is no kernel"));
  fs::remove_all(root);
}

}  // namespace
}  // namespace bulkhead::zone
