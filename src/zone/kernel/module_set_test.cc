#include "zone/kernel/module_set.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <lzma.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "zone/kernel/module_file.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;

// The smallest module file: a header, .modinfo, section names, and a table of the three.
std::string made_up_module(std::string_view modinfo) {
  const std::string names{"\0.modinfo\0.shstrtab\0", 20};
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_REL;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 3;
  header.e_shstrndx = 2;
  header.e_shoff = sizeof header + modinfo.size() + names.size();
  Elf64_Shdr sections[3]{};
  sections[1].sh_name = 1, sections[1].sh_type = SHT_PROGBITS;
  sections[1].sh_offset = sizeof header, sections[1].sh_size = modinfo.size();
  sections[2].sh_name = 10, sections[2].sh_type = SHT_STRTAB;
  sections[2].sh_offset = sizeof header + modinfo.size(), sections[2].sh_size = names.size();
  std::string file(reinterpret_cast<const char*>(&header), sizeof header);
  file += modinfo;
  file += names;
  file.append(reinterpret_cast<const char*>(sections), sizeof sections);
  return file;
}

std::string xz(const std::string& text) {
  std::string out(text.size() + 1024, '\0');
  size_t size = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, nullptr, reinterpret_cast<const u8*>(text.data()), text.size(),
                                    reinterpret_cast<u8*>(out.data()), &size, out.size()),
            LZMA_OK);
  out.resize(size);
  return out;
}

class ModuleSetTest : public ::testing::Test {
 protected:
  ModuleSetTest() {
    char pattern[] = "/tmp/bulkhead-modules-XXXXXX";
    root_ = ::mkdtemp(pattern);
    fs::create_directories(root_ + "/kernel/fs");
  }
  ~ModuleSetTest() override { fs::remove_all(root_); }
  void put(const std::string& file, const std::string& content) { std::ofstream{root_ + "/" + file} << content; }
  void module(const std::string& file, std::string_view depends, std::string_view more = {}) {
    put("kernel/fs/" + file, made_up_module("license=GPL" + std::string(1, '\0') + "depends=" + std::string{depends} +
                                            std::string(1, '\0') + std::string{more} + std::string(1, '\0')));
  }
  Result<std::vector<std::string>> resolve(const std::vector<WantedModule>& wanted) {
    BH_ASSIGN(const std::vector<LoadableModule> modules, resolve_modules(root_, wanted));
    std::vector<std::string> names;
    for (const LoadableModule& one : modules) names.push_back(one.name);
    return names;
  }
  std::string root_;
};

using Names = std::vector<std::string>;

TEST_F(ModuleSetTest, DependenciesComeFirstAndOnce) {
  module("a.ko", "b,c-d");
  module("b.ko", "e");
  module("c-d.ko", "e");
  module("e.ko", "");
  EXPECT_EQ(resolve({{"a"}, {"b"}}).value(), (Names{"e", "b", "c_d", "a"}));
}

TEST_F(ModuleSetTest, BuiltInIsLeftOut) {
  module("a.ko", "b");
  put("modules.builtin", "kernel/drivers/b.ko\nkernel/drivers/virtio-x.ko\n");
  EXPECT_EQ(resolve({{"a"}, {"virtio_x"}}).value(), Names{"a"});
}

TEST_F(ModuleSetTest, SoftDependenciesComeFirstIfTheyExist) {
  module("ext4.ko", "mbcache", "softdep=pre: crc32c missing post: later");
  module("mbcache.ko", "");
  module("crc32c_generic.ko", "");
  EXPECT_EQ(resolve({{"ext4"}}).value(), (Names{"crc32c_generic", "mbcache", "ext4"}));
}

TEST_F(ModuleSetTest, PackedModulesAreUnpacked) {
  put("kernel/fs/a.ko.xz", xz(made_up_module("depends=")));
  EXPECT_EQ(resolve_modules(root_, {{"a"}}).value().at(0).content, made_up_module("depends="));
}

TEST_F(ModuleSetTest, MissingIsNamedWithWhoNeedsIt) {
  module("a.ko", "gone");
  EXPECT_EQ(resolve({{"a"}}).error().message, "the kernel modules in " + root_ + " have no gone, which a needs");
  EXPECT_FALSE(resolve({{"nothing"}}));
  EXPECT_EQ(resolve({{"nothing", false}}).value(), Names{});
}

TEST_F(ModuleSetTest, CircleEnds) {
  module("a.ko", "b");
  module("b.ko", "a");
  EXPECT_EQ(resolve({{"a"}}).value(), (Names{"b", "a"}));
}

TEST_F(ModuleSetTest, BrokenFilesAreErrors) {
  put("kernel/fs/a.ko", "not ELF at all");
  EXPECT_TRUE(resolve({{"a"}}).error().message.contains("fs/a.ko"));
  const std::string packed = xz(made_up_module("depends="));
  put("kernel/fs/b.ko.xz", packed.substr(0, packed.size() / 2));
  EXPECT_TRUE(resolve({{"b"}}).error().message.contains("xz"));
  put("kernel/fs/c.ko", "");
  EXPECT_FALSE(resolve({{"c"}}));
}

TEST_F(ModuleSetTest, NoFolderIsAnError) { EXPECT_FALSE(resolve_modules(root_ + "/nowhere", {{"a"}})); }

TEST(ModuleFile, EveryTruncationIsAnErrorOrAnAnswer) {
  const std::string file = made_up_module("depends=a,b");
  for (std::size_t size = 0; size < file.size(); ++size)
    EXPECT_FALSE(parse_module(std::as_bytes(std::span{file}.first(size)))) << size;
}

TEST(ModuleFile, WildOffsetsAreErrors) {
  for (const std::size_t field : {offsetof(Elf64_Ehdr, e_shoff), offsetof(Elf64_Ehdr, e_shstrndx)}) {
    std::string file = made_up_module("depends=a");
    std::memset(file.data() + field, 0xFF, field == offsetof(Elf64_Ehdr, e_shoff) ? 8 : 2);
    EXPECT_FALSE(parse_module(std::as_bytes(std::span{file})));
  }
  std::string file = made_up_module("depends=a");
  Elf64_Ehdr header;
  std::memcpy(&header, file.data(), sizeof header);
  const u64 huge = ~u64{0} - 3;
  std::memcpy(file.data() + header.e_shoff + sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, sh_size), &huge, 8);
  EXPECT_FALSE(parse_module(std::as_bytes(std::span{file})));
}

TEST(ModuleFile, Names) {
  EXPECT_EQ(module_name("virtio-rng.ko.xz"), "virtio_rng");
  EXPECT_EQ(module_name("ext4.ko"), "ext4");
  EXPECT_EQ(module_name("ext4.ko.bak"), "");
  EXPECT_EQ(module_name(".ko"), "");
  EXPECT_EQ(module_name("modules.dep"), "");
}

}  // namespace
}  // namespace bulkhead::zone
