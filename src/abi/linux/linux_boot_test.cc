#include "abi/linux/linux_boot.h"

#include "spec/linux_boot.h"
#include "tests/support/boot_fixture.h"

namespace bulkhead::abi {
namespace {
namespace lb = spec::linux_boot;

struct LinuxBoot : testing::BootFixture {
  u64 page() const { return state.gpr[6]; }
};

TEST_F(LinuxBoot, ZeroPageFromABzImage) {
  load(testing::make_bzimage(testing::make_elf(testing::linux_like())), Protocol::kLinux64);
  ASSERT_TRUE(prepare_linux64(kernel, info, memory, state));
  EXPECT_EQ(state.rip, 0x1000000u);
  EXPECT_EQ(get<u32>(page() + lb::kHeaderMagic), lb::kHeaderMagicValue);
  EXPECT_EQ(get<u16>(page() + lb::kVersion), 0x020f);
  EXPECT_EQ(get<u32>(page() + lb::kInitSize), 0x40000u);  // the kernel's own header came along
  EXPECT_EQ(get<u8>(page() + lb::kTypeOfLoader), 0xff);
  EXPECT_EQ(text(get<u32>(page() + lb::kCommandLine)), "console=hvc0 quiet");
  EXPECT_EQ(get<u64>(page() + lb::kAcpiRsdp), 0xe0000u);
  EXPECT_EQ(get<u32>(page() + lb::kRamdiskImage), 0x1f00000u);
  EXPECT_EQ(get<u32>(page() + lb::kRamdiskSize), 0x12345u);
  ASSERT_EQ(get<u8>(page() + lb::kE820Entries), 3);
  EXPECT_EQ(get<u64>(page() + lb::kE820Table + 2 * 20), 0x100000u);
  EXPECT_EQ(get<u64>(page() + lb::kE820Table + 2 * 20 + 8), 31_MiB);
  EXPECT_EQ(get<u32>(page() + lb::kE820Table + 2 * 20 + 16), 1u);
}

TEST_F(LinuxBoot, ZeroPageOfAPlainVmlinux) {
  load(testing::make_elf(testing::linux_like()), Protocol::kLinux64);
  info.initrd.reset();
  ASSERT_TRUE(prepare_linux64(kernel, info, memory, state));
  EXPECT_EQ(get<u32>(page() + lb::kHeaderMagic), lb::kHeaderMagicValue);
  EXPECT_EQ(get<u32>(page() + lb::kRamdiskSize), 0u);
}

TEST_F(LinuxBoot, KernelsOwnCommandLineLimitCounts) {
  load(testing::make_bzimage(testing::make_elf(testing::linux_like()), {.command_line_size = 10}), Protocol::kLinux64);
  EXPECT_FALSE(prepare_linux64(kernel, info, memory, state));
  info.command_line = "0123456789";
  EXPECT_TRUE(prepare_linux64(kernel, info, memory, state));
}

TEST_F(LinuxBoot, AbsurdLimitsOfTheKernelAreCut) {
  load(testing::make_bzimage(testing::make_elf(testing::linux_like()), {.command_line_size = ~u32{0}}),
       Protocol::kLinux64);
  info.command_line = std::string(100000, 'x');
  EXPECT_FALSE(prepare_linux64(kernel, info, memory, state));
}

TEST_F(LinuxBoot, TooManyMapEntries) {
  load(testing::make_elf(testing::linux_like()), Protocol::kLinux64);
  info.memory_map.resize(129, info.memory_map[0]);
  EXPECT_FALSE(prepare_linux64(kernel, info, memory, state));
}

}  // namespace
}  // namespace bulkhead::abi
