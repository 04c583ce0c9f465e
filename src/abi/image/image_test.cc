#include <gtest/gtest.h>

#include "abi/image/kernel.h"
#include "tests/support/kernel_images.h"

namespace bulkhead::abi {
namespace {
using testing::BzRecipe;
using testing::ElfRecipe;
using testing::ImageBytes;
using testing::linux_like;
using testing::make_bzimage;
using testing::make_elf;

GuestMemory memory_of(u64 bytes) {
  auto memory = GuestMemory::create_pc(bytes);
  EXPECT_TRUE(memory);
  return std::move(*memory);
}

Result<Kernel> load(const ImageBytes& file, const GuestMemory& memory, std::optional<Protocol> wanted = {}) {
  return load_kernel(MemorySource{file}, "k", memory, wanted);
}

std::string error_of(const ImageBytes& file, u64 megabytes = 32, std::optional<Protocol> wanted = {}) {
  const GuestMemory memory = memory_of(megabytes << 20);
  const auto kernel = load(file, memory, wanted);
  return kernel ? "" : kernel.error().message;
}

// Every byte of RAM is what the recipe says, and zero elsewhere: nothing of the scratch space is left behind.
void expect_exactly(const GuestMemory& memory, const ElfRecipe& recipe) {
  std::vector<std::byte> expected(memory.size());
  for (const auto& s : recipe.segments)
    std::copy(s.content.begin(), s.content.end(), expected.begin() + static_cast<long>(s.paddr));
  const std::byte* const have = memory.host(Gpa{0}, memory.size());
  for (u64 at = 0; at < expected.size(); at += kPageSize)
    ASSERT_EQ(std::memcmp(have + at, expected.data() + at, kPageSize), 0) << "page " << std::hex << at;
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

class EveryCompression : public ::testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(Image, EveryCompression,
                         ::testing::Values(Compression::kNone, Compression::kGzip, Compression::kXz, Compression::kLzma,
                                           Compression::kLz4, Compression::kZstd, Compression::kBzip2),
                         [](const auto& kind) { return std::string{compression_name(kind.param)}; });

TEST_P(EveryCompression, BzImageIsUnpackedAndNothingElseIsLeft) {
  const GuestMemory memory = memory_of(32_MiB);
  const auto kernel = load(make_bzimage(make_elf(linux_like()), {.compression = GetParam()}), memory);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ(kernel->protocol, Protocol::kPvh);
  EXPECT_EQ(kernel->entry, 0x1000040u);
  EXPECT_EQ(kernel->description, fmt::format("bzImage 6.1.0-test ({}), PVH entry", compression_name(GetParam())));
  EXPECT_EQ(kernel->loaded, (Extent{Gpa{0x1000000}, 0x40000}));
  expect_exactly(memory, linux_like());
}

TEST_P(EveryCompression, SegmentsThatMoveUpGoThroughScratchSpace) {
  ElfRecipe recipe = linux_like();
  recipe.segments[2].paddr = 0x1800000;
  const GuestMemory memory = memory_of(32_MiB);
  const auto kernel = load(make_bzimage(make_elf(recipe), {.compression = GetParam()}), memory);
  ASSERT_TRUE(kernel) << kernel.error().message;
  expect_exactly(memory, recipe);
}

TEST_P(EveryCompression, TruncatedAnywhereIsAnError) {
  const ImageBytes whole = make_bzimage(make_elf(linux_like()), {.compression = GetParam()});
  for (u64 size = 0; size < whole.size(); size += size < 0x700 ? 13 : 501) {
    const std::string error = error_of(ImageBytes(whole.begin(), whole.begin() + static_cast<long>(size)));
    EXPECT_NE(error, "") << size;
    EXPECT_EQ(error.find('\n'), error.npos);
  }
}

// The setup header still announces the old length: the payload itself is short.
TEST_P(EveryCompression, TruncatedPayloadIsAnError) {
  const ImageBytes whole = make_bzimage(make_elf(linux_like()), {.compression = GetParam()});
  const u64 start = testing::kBzSetupBytes + testing::kBzPayloadOffset;
  for (const u64 cut : {u64{1}, u64{5}, u64{9}, (whole.size() - start) / 2, whole.size() - start - 40}) {
    ImageBytes file(whole.begin(), whole.end() - static_cast<long>(cut));
    testing::put(file, spec::linux_boot::kPayloadLength, static_cast<u32>(file.size() - start));
    EXPECT_NE(error_of(file), "") << cut;
  }
}

TEST_P(EveryCompression, FlippedBitsNeverDoHarm) {
  const ImageBytes whole = make_bzimage(make_elf(linux_like()), {.compression = GetParam()});
  for (u64 at = 0; at < whole.size(); at += at < 0x700 ? 7 : 197) {
    ImageBytes file = whole;
    file[at] ^= std::byte{static_cast<unsigned char>(1u << (at % 8))};
    const GuestMemory memory = memory_of(24_MiB);
    const auto kernel = load(file, memory);
    EXPECT_TRUE(!kernel || memory.host(Gpa{kernel->entry}, 1) != nullptr) << at;
  }
}

TEST_P(EveryCompression, WrongUnpackedSizeIsAnError) {
  if (GetParam() == Compression::kNone) GTEST_SKIP() << "has no announced size";
  for (const int difference : {-4096, -1, 1, 4096}) {
    ImageBytes file = make_bzimage(make_elf(linux_like()), {.compression = GetParam()});
    u32 size = 0;
    std::memcpy(&size, file.data() + file.size() - 4, 4);
    testing::put(file, file.size() - 4, size + static_cast<u32>(difference));
    EXPECT_NE(error_of(file), "") << difference;
  }
}

TEST_P(EveryCompression, PrefixStopsWhereItIsTold) {
  const ImageBytes content = testing::pattern(300000, 9);
  const ImageBytes packed = testing::compress(GetParam(), content);
  for (const u64 want : {u64{1}, u64{64}, u64{65536}, u64{300000}, u64{400000}}) {
    ImageBytes out(want);
    const auto got = decompress_prefix(GetParam(), packed, out);
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(*got, std::min<u64>(want, content.size()));
    EXPECT_EQ(std::memcmp(out.data(), content.data(), *got), 0);
  }
}

TEST(Image, Lz4FramesOfSeveralBlocks) {
  const ImageBytes content = testing::pattern(20_MiB + 12345, 3);
  const ImageBytes packed = testing::compress(Compression::kLz4, content);
  ImageBytes out(content.size());
  ASSERT_TRUE(decompress(Compression::kLz4, packed, out));
  EXPECT_TRUE(out == content);
  ImageBytes shorter(content.size() - 1);
  EXPECT_FALSE(decompress(Compression::kLz4, packed, shorter));
}

TEST(Image, ElfWithPvhNote) {
  const GuestMemory memory = memory_of(32_MiB);
  const auto kernel = load(make_elf(linux_like()), memory);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ(kernel->description, "ELF64, PVH entry");
  EXPECT_EQ(kernel->loaded.end(), Gpa{0x1007000 + 0x1800 + 0x4000});
  ASSERT_EQ(kernel->elf.xen_notes.size(), 2u);  // GNU's is not Xen's
  expect_exactly(memory, linux_like());
}

TEST(Image, Elf32WithPvhNote) {
  ElfRecipe recipe{false,
                   spec::elf::kMachine386,
                   0x100000,
                   {{0x1000, 0x100000, 0, testing::pattern(0x800, 1), 0x100}},
                   {{18, 0x100010, "Xen"}}};
  const GuestMemory memory = memory_of(8_MiB);
  const auto kernel = load(make_elf(recipe), memory);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ(kernel->description, "ELF32, PVH entry");
  EXPECT_EQ(kernel->entry, 0x100010u);
  expect_exactly(memory, recipe);
}

TEST(Image, Linux64EntersTheElfEntryPhysically) {
  ElfRecipe recipe = linux_like();
  recipe.notes.clear();
  const GuestMemory memory = memory_of(32_MiB);
  auto kernel = load(make_bzimage(make_elf(recipe)), memory);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ(kernel->protocol, Protocol::kLinux64);
  EXPECT_EQ(kernel->entry, 0x1000000u);
  recipe.entry = 0xffffffff81000020;  // some kernels give the virtual address
  const GuestMemory other = memory_of(32_MiB);
  kernel = load(make_elf(recipe), other);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ(kernel->entry, 0x1000020u);
}

TEST(Image, WantedProtocolIsObeyedOrRefused) {
  const ImageBytes with_note = make_bzimage(make_elf(linux_like()));
  const GuestMemory memory = memory_of(32_MiB);
  const auto kernel = load(with_note, memory, Protocol::kLinux64);
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->protocol, Protocol::kLinux64);
  EXPECT_SAYS(error_of(with_note, 64, Protocol::kMultiboot), "no Multiboot header");
  ElfRecipe recipe = linux_like();
  recipe.notes.clear();
  EXPECT_SAYS(error_of(make_elf(recipe), 64, Protocol::kPvh), "no PVH entry");
  recipe.is_64 = false;
  recipe.segments[0].vaddr = recipe.segments[1].vaddr = recipe.segments[2].vaddr = 0;
  EXPECT_SAYS(error_of(make_elf(recipe), 64, Protocol::kLinux64), "32-bit");
  EXPECT_SAYS(error_of(make_elf(recipe)), "neither a PVH entry");
}

TEST(Image, TooBigForTheMemorySaysHowMuchItNeeds) {
  const std::string small = error_of(make_elf(linux_like()), 16);
  EXPECT_SAYS(small, "memory of 16 MiB");
  EXPECT_SAYS(small, "17 MiB");
  // It loads, but its init_size reaches further.
  EXPECT_SAYS(error_of(make_bzimage(make_elf(linux_like()), {.init_size = 0x3000000}), 32), "64 MiB");
}

TEST(Image, EntryOutsideOfEverySegment) {
  ElfRecipe recipe = linux_like();
  recipe.notes = {{18, 0x5000000, "Xen"}};
  EXPECT_SAYS(error_of(make_elf(recipe)), "not in any of its segments");
  recipe.notes = {{18, u64{1} << 40, "Xen"}};  // not a 32-bit address, so no PVH entry
  EXPECT_EQ(error_of(make_elf(recipe)), "");
}

TEST(Image, SegmentsInTheFirmwareAreaAreRefused) {
  ElfRecipe recipe = linux_like();
  recipe.segments[0].paddr = 0xf0000;
  EXPECT_SAYS(error_of(make_elf(recipe)), "firmware tables");
}

TEST(Image, HostileElfHeaders) {
  const ImageBytes good = make_elf(linux_like());
  const auto with = [&](u64 offset, auto value) {
    ImageBytes file = good;
    testing::put(file, offset, value);
    return error_of(file);
  };
  EXPECT_SAYS(with(18, u16{183}), "arm64");
  EXPECT_SAYS(with(18, u16{40}), "for arm");
  EXPECT_SAYS(with(18, u16{22}), "not an x86 kernel");
  EXPECT_SAYS(with(5, u8{2}), "big-endian");
  EXPECT_SAYS(with(4, u8{7}), "ELF class");
  EXPECT_SAYS(with(56, u16{0}), "no program headers");
  EXPECT_SAYS(with(56, u16{65535}), "65535 program headers");
  EXPECT_SAYS(with(54, u16{32}), "of 32 bytes");
  EXPECT_SAYS(with(32, ~u64{0}), "truncated");
  EXPECT_SAYS(with(64 + 8, ~u64{0} - 100), "truncated");         // p_offset
  EXPECT_SAYS(with(64 + 32, ~u64{0}), "truncated");              // p_filesz
  EXPECT_SAYS(with(64 + 40, u64{1}), "more bytes in the file");  // p_memsz
  EXPECT_SAYS(with(64 + 40, ~u64{0} - 0xfff), "wraps");
  EXPECT_SAYS(with(64 + 24, ~u64{0} - 0x10), "wraps");  // p_paddr
  EXPECT_SAYS(with(64 + 40, u64{1} << 40), "too big");
}

TEST(Image, HostileNotes) {
  ElfRecipe recipe = linux_like();
  const ImageBytes good = make_elf(recipe);
  const u64 notes = good.size() - 3 * 24;  // each: header 12, name 4, value 8
  for (const u64 field : {u64{0}, u64{4}})
    for (const u32 value : {u32{0x7fffffff}, u32{0xffffffff}, u32{200}}) {
      ImageBytes file = good;
      testing::put(file, notes + field, value);
      EXPECT_SAYS(error_of(file), "ELF note");
    }
}

TEST(Image, StrangersAreNamed) {
  ImageBytes file(4096);
  EXPECT_SAYS(error_of(file), "unknown format");
  testing::put(file, 0x38, u32{0x644d5241});
  EXPECT_SAYS(error_of(file), "arm64 Image");
  EXPECT_SAYS(error_of(testing::compress(Compression::kGzip, file)), "gzip data");
  EXPECT_SAYS(error_of({}), "empty");
  EXPECT_SAYS(error_of(ImageBytes(1)), "unknown format");
}

TEST(Image, HostileSetupHeaders) {
  namespace lb = spec::linux_boot;
  const ImageBytes good = make_bzimage(make_elf(linux_like()));
  const auto with = [&](u64 offset, auto value) {
    ImageBytes file = good;
    testing::put(file, offset, value);
    return error_of(file);
  };
  EXPECT_SAYS(with(lb::kVersion, u16{0x0204}), "protocol 2.04");
  EXPECT_SAYS(with(lb::kLoadFlags, u8{0}), "zImage");
  EXPECT_SAYS(with(lb::kJump + 1, u8{0xff}), "setup header ends");
  EXPECT_SAYS(with(lb::kJump + 1, u8{4}), "setup header ends");
  EXPECT_SAYS(with(lb::kPayloadLength, u32{0}), "0 bytes");
  EXPECT_SAYS(with(lb::kPayloadLength, ~u32{0}), "truncated");
  EXPECT_SAYS(with(lb::kPayloadOffset, ~u32{0}), "truncated");
  EXPECT_SAYS(with(lb::kPayloadOffset, u32{0}), "unknown format");
  EXPECT_SAYS(with(lb::kSetupSectors, u8{255}), "truncated");
  EXPECT_EQ(with(lb::kKernelVersion, u16{0xffff}), "");
  EXPECT_SAYS(with(testing::kBzSetupBytes + testing::kBzPayloadOffset, u32{0x4f5a4c89}), "lzo");
}

// ---- Multiboot headers

ImageBytes multiboot_elf(bool is_64, u32 flags, u64 header_offset = 0x1000) {
  ElfRecipe recipe{is_64,
                   is_64 ? spec::elf::kMachineX86_64 : spec::elf::kMachine386,
                   0x100020,
                   {{0x1000, 0x100000, 0, testing::pattern(0x3000, 1), 0x1000}},
                   {}};
  ImageBytes file = make_elf(recipe);
  testing::put(file, header_offset, testing::multiboot_header(flags));
  return file;
}

TEST(Image, MultibootElfOfBothSizes) {
  for (const bool is_64 : {false, true}) {
    const GuestMemory memory = memory_of(8_MiB);
    const auto kernel = load(multiboot_elf(is_64, 3), memory);
    ASSERT_TRUE(kernel) << kernel.error().message;
    EXPECT_EQ(kernel->protocol, Protocol::kMultiboot);
    EXPECT_EQ(kernel->entry, 0x100020u);
    EXPECT_EQ(kernel->loaded, (Extent{Gpa{0x100000}, 0x4000}));
  }
}

TEST(Image, MultibootHeaderMustLieInTheFirst8KiB) {
  EXPECT_EQ(error_of(multiboot_elf(false, 0, 8192 - 32)), "");
  EXPECT_SAYS(error_of(multiboot_elf(false, 0, 8192)), "neither a PVH entry");
  EXPECT_SAYS(error_of(multiboot_elf(false, 0, 0x1002)), "neither a PVH entry");  // not on a multiple of 4
}

TEST(Image, MultibootDemandsWeCannotMeet) { EXPECT_SAYS(error_of(multiboot_elf(false, 1 << 2)), "flags 0x4"); }

ImageBytes raw_multiboot(u32 load, u32 load_end, u32 bss_end, u32 entry, u32 header_at = 0x10) {
  ImageBytes file = testing::pattern(0x2000, 5);
  auto header = testing::multiboot_header(spec::multiboot::kHasAddresses);
  header.header_address = load + header_at;
  header.load_address = load;
  header.load_end = load_end;
  header.bss_end = bss_end;
  header.entry = entry;
  testing::put(file, 0x10, header);
  return file;
}

TEST(Image, RawMultibootByItsAddresses) {
  const ImageBytes file = raw_multiboot(0x200000, 0x201000, 0x208000, 0x200040);
  const GuestMemory memory = memory_of(8_MiB);
  const auto kernel = load(file, memory);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ(kernel->description, "raw image, Multiboot entry");
  EXPECT_EQ(kernel->entry, 0x200040u);
  EXPECT_EQ(kernel->loaded, (Extent{Gpa{0x200000}, 0x8000}));
  EXPECT_EQ(std::memcmp(memory.host(Gpa{0x200000}, 0x1000), file.data(), 0x1000), 0);
}

TEST(Image, RawMultibootWholeFileWhenNoEndIsGiven) {
  const GuestMemory memory = memory_of(8_MiB);
  const auto kernel = load(raw_multiboot(0x200000, 0, 0, 0x200040), memory);
  ASSERT_TRUE(kernel) << kernel.error().message;
  EXPECT_EQ(kernel->loaded.size, 0x2000u);
}

TEST(Image, RawMultibootThatContradictsItself) {
  EXPECT_SAYS(error_of(raw_multiboot(0x200000, 0x1000, 0, 0x200040)), "before it begins");
  EXPECT_SAYS(error_of(raw_multiboot(0x200000, 0x300000, 0, 0x200040)), "truncated");
  EXPECT_SAYS(error_of(raw_multiboot(0x200000, 0x201000, 0x200800, 0x200040)), "bss");
  EXPECT_SAYS(error_of(raw_multiboot(0x200000, 0x201000, 0, 0x300000)), "not in any");
  EXPECT_SAYS(error_of(raw_multiboot(0x200000, 0x201000, 0, 0x200040, 0x2000)), "before the file");
  EXPECT_SAYS(error_of(raw_multiboot(0xfffff000, 0, 0, 0xfffff040)), "too big");
}

// ---- files

TEST(Image, FilesThatAreNotThereOrNoFiles) {
  const GuestMemory memory = memory_of(8_MiB);
  const auto missing = load_kernel("/nonexistent/vmlinuz", memory, {});
  ASSERT_FALSE(missing);
  EXPECT_SAYS(missing.error().message, "/nonexistent/vmlinuz");
  const auto folder = load_kernel("/", memory, {});
  ASSERT_FALSE(folder);
  EXPECT_SAYS(folder.error().message, "not a regular file");
  const auto text = load_kernel("/proc/self/cmdline", memory, {});  // regular, but empty
  ASSERT_FALSE(text);
  EXPECT_SAYS(text.error().message, "the kernel /proc/self/cmdline: is empty");
}

}  // namespace
}  // namespace bulkhead::abi
