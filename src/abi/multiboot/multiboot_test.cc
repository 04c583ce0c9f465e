#include "abi/multiboot/multiboot.h"

#include "spec/multiboot.h"
#include "tests/support/boot_fixture.h"

namespace bulkhead::abi {
namespace {
namespace mb = spec::multiboot;

struct Multiboot : testing::BootFixture {
  Multiboot() {
    testing::ElfRecipe recipe{
        false, spec::elf::kMachine386, 0x100020, {{0x1000, 0x100000, 0, testing::pattern(0x3000, 1), 0x1000}}, {}};
    testing::ImageBytes file = testing::make_elf(recipe);
    testing::put(file, 0x1000, testing::multiboot_header(3));
    load(file);
  }
  mb::Info prepared() {
    const auto done = prepare_multiboot(kernel, info, memory, state);
    EXPECT_TRUE(done) << done.error().message;
    return get<mb::Info>(state.gpr[3]);
  }
};

TEST_F(Multiboot, InformationSaysItAll) {
  info.initrd.reset();
  info.modules = {{{Gpa{0x200000}, 0x1000}, "first a=b"}, {{Gpa{0x201000}, 0}, "second"}};
  const mb::Info out = prepared();
  EXPECT_EQ(state.gpr[0], 0x2badb002u);
  EXPECT_EQ(state.rip, 0x100020u);
  EXPECT_EQ(out.flags, 0x24du);
  EXPECT_EQ(out.mem_lower, 639u);
  EXPECT_EQ(out.mem_upper, 31u * 1024);
  EXPECT_EQ(text(out.command_line), "path/k console=hvc0 quiet");
  EXPECT_EQ(text(out.loader_name), "Bulkhead");
  ASSERT_EQ(out.memory_map_length, 3 * 24u);
  u64 at = out.memory_map;
  for (const MapEntry& expected : info.memory_map) {
    const auto entry = get<mb::MapEntry>(at);
    EXPECT_EQ(entry.size, 20u);
    EXPECT_EQ(u64{entry.address}, expected.extent.start.value);
    EXPECT_EQ(u64{entry.length}, expected.extent.size);
    at += entry.size + 4;
  }
  ASSERT_EQ(out.module_count, 2u);
  const auto first = get<mb::Module>(out.modules), second = get<mb::Module>(out.modules + 16);
  EXPECT_EQ(first.start, 0x200000u);
  EXPECT_EQ(first.end, 0x201000u);
  EXPECT_EQ(text(first.string), "first a=b");
  EXPECT_EQ(second.start, second.end);
  EXPECT_EQ(text(second.string), "second");
}

TEST_F(Multiboot, InitrdIsTheFirstModule) {
  info.modules = {{{Gpa{0x200000}, 0x1000}, "other"}};
  const mb::Info out = prepared();
  ASSERT_EQ(out.module_count, 2u);
  EXPECT_EQ(get<mb::Module>(out.modules).start, 0x1f00000u);
}

TEST_F(Multiboot, TooManyModules) {
  info.modules.resize(1000, Module{{Gpa{0x200000}, 0}, "m"});
  EXPECT_FALSE(prepare_multiboot(kernel, info, memory, state));
}

TEST_F(Multiboot, ModuleStringsTooLong) {
  info.modules = {{{Gpa{0x200000}, 0}, std::string(5000, 'a')}, {{Gpa{0x200000}, 0}, std::string(5000, 'b')}};
  EXPECT_FALSE(prepare_multiboot(kernel, info, memory, state));
}

TEST_F(Multiboot, CommandLineTooLong) {
  info.command_line = std::string(9000, 'x');
  EXPECT_FALSE(prepare_multiboot(kernel, info, memory, state));
}

}  // namespace
}  // namespace bulkhead::abi
