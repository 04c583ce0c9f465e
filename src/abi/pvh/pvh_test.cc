#include "abi/pvh/pvh.h"

#include "spec/pvh.h"
#include "tests/support/boot_fixture.h"

namespace bulkhead::abi {
namespace {

struct Pvh : testing::BootFixture {
  Pvh() { load(testing::make_bzimage(testing::make_elf(testing::linux_like()))); }
};

TEST_F(Pvh, StartInfoSaysItAll) {
  ASSERT_TRUE(prepare_pvh(kernel, info, memory, state));
  EXPECT_EQ(state.rip, 0x1000040u);
  const auto start = get<spec::pvh::StartInfo>(state.gpr[3]);
  EXPECT_EQ(start.magic, 0x336ec578u);
  EXPECT_EQ(start.version, 1u);
  EXPECT_EQ(start.flags, 0u);
  EXPECT_EQ(start.rsdp, 0xe0000u);
  EXPECT_EQ(text(start.command_line), "console=hvc0 quiet");
  ASSERT_EQ(start.memory_map_entries, 3u);
  for (u64 i = 0; i < 3; ++i) {
    const auto entry = get<spec::pvh::MapEntry>(start.memory_map + i * sizeof(spec::pvh::MapEntry));
    EXPECT_EQ(entry.address, info.memory_map[i].extent.start.value);
    EXPECT_EQ(entry.size, info.memory_map[i].extent.size);
    EXPECT_EQ(entry.type, info.memory_map[i].type);
  }
  ASSERT_EQ(start.module_count, 1u);
  const auto module = get<spec::pvh::Module>(start.modules);
  EXPECT_EQ(module.address, 0x1f00000u);
  EXPECT_EQ(module.size, 0x12345u);
}

TEST_F(Pvh, WithoutInitrdThereIsNoModule) {
  info.initrd.reset();
  ASSERT_TRUE(prepare_pvh(kernel, info, memory, state));
  EXPECT_EQ(get<spec::pvh::StartInfo>(state.gpr[3]).module_count, 0u);
}

TEST_F(Pvh, CommandLineAtAndOverTheLimit) {
  info.command_line = std::string(2047, 'x');
  EXPECT_TRUE(prepare_pvh(kernel, info, memory, state));
  info.command_line += 'x';
  const auto result = prepare_pvh(kernel, info, memory, state);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("2048 bytes"), std::string::npos);
  EXPECT_NE(result.error().message.find("2047"), std::string::npos);
}

TEST_F(Pvh, ZeroByteInTheCommandLine) {
  info.command_line = std::string("a\0b", 3);
  EXPECT_FALSE(prepare_pvh(kernel, info, memory, state));
}

TEST_F(Pvh, TooManyMapEntries) {
  info.memory_map.resize(1000, info.memory_map[0]);
  EXPECT_FALSE(prepare_pvh(kernel, info, memory, state));
}

}  // namespace
}  // namespace bulkhead::abi
