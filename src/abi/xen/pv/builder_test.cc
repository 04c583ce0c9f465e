// Fresh PV domains: what a kernel finds at its start, and kernels that cannot be started.
#include "abi/xen/pv/builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xen/xen.h>

#include <fstream>

#include "abi/xen/pv/page_tables.h"
#include "spec/elf.h"
#include "tests/support/kernel_images.h"

namespace bulkhead::abi::xen::pv {
namespace {

using namespace bulkhead::testing;
using namespace spec::elf;
using ::testing::HasSubstr;

constexpr u64 kBase = 0xffffffff80000000, kLoad = 0x100000;
constexpr u64 kFrames = 4096, kMebibytes = kFrames * kPageSize >> 20;

// A kernel as Linux is one, as far as its notes go.
ElfRecipe small_kernel() {
  ElfRecipe recipe;
  recipe.entry = kLoad;
  recipe.segments = {{0x1000, kLoad, kBase + kLoad, pattern(0x3000, 1), 0x2000}};
  recipe.notes = {{kXenNoteEntry, kBase + kLoad + 0x40}, {kXenNoteVirtBase, kBase}};
  return recipe;
}

struct BuilderTest : ::testing::Test {
  const Layout layout = Layout::of(kFrames, Layout::kUsualFirst);
  GuestMemory memory = make_memory();
  GuestMemory physical = *memory.seen_from(Gpa{0});
  ElfRecipe kernel = small_kernel();
  std::string initrd, command_line = "root=/dev/xvda quiet";
  Built built;

  GuestMemory make_memory() const {
    return *GuestMemory::create(
        {{Gpa{layout.first << kPageShift}, kFrames << kPageShift},
         {Gpa{layout.ram_end() << kPageShift}, (layout.all_frames - layout.ram_frames) << kPageShift}});
  }
  static std::string file(std::string_view name, const ImageBytes& bytes) {
    const std::string path = ::testing::TempDir() + std::string{name} + "-" + std::to_string(::getpid());
    std::ofstream{path, std::ios::binary}.write(reinterpret_cast<const char*>(bytes.data()),
                                                static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  void set_note(u32 type, u64 value) {
    std::erase_if(kernel.notes, [type](const ImageNote& note) { return note.type == type; });
    kernel.notes.push_back({.type = type, .value = value});
  }
  // Empty, or why not.
  std::string build_image(const ImageBytes& image) {
    auto made = build({file("kernel", image), initrd, command_line}, physical, layout);
    if (!made) return made.error().message;
    built = std::move(*made);
    return {};
  }
  std::string build_it() { return build_image(make_elf(kernel)); }

  u64* table(u64 machine) const { return reinterpret_cast<u64*>(memory.host(Gpa{machine << kPageShift}, kPageSize)); }
  u64 entry(u64 linear, unsigned level = 1) const {
    u64 frame = built.entry.root;
    for (unsigned at = 4; at > level; --at) {
      const u64 above = table(frame)[index_at(at, linear)];
      if (!(above & kPresent)) return 0;
      frame = frame_of_entry(above);
    }
    return table(frame)[index_at(level, linear)];
  }
  template <class T>
  const T& at(u64 linear) const {
    return *reinterpret_cast<const T*>(reinterpret_cast<const std::byte*>(table(frame_of_entry(entry(linear)))) +
                                       linear % kPageSize);
  }
  const start_info_t& info() const { return at<start_info_t>(built.entry.start_info); }
  u64 physical_frame(u64 linear) const { return frame_of_entry(entry(linear)) - layout.first; }
  bool writable(u64 linear) const { return entry(linear) & kWritable; }
  void expect_valid_tables() {
    for (u64 i = 0; i < info().nr_pt_frames; ++i) EXPECT_FALSE(writable(info().pt_base + i * kPageSize)) << i;
    const u64 end = built.entry.stack + 512_KiB;
    for (u64 linear = kBase; linear < end; linear += kPageSize)
      ASSERT_EQ(physical_frame(linear), (linear - kBase) >> kPageShift);
    PageTables tables{memory, layout};
    EXPECT_EQ(tables.pin(built.entry.root, 4), 0);
  }
};

// ---- what a kernel finds

TEST_F(BuilderTest, KernelAndStack) {
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(built.entry.rip, kBase + kLoad + 0x40);
  for (u64 i = 0; i < 3; ++i) EXPECT_EQ(physical_frame(kBase + kLoad + i * kPageSize), (kLoad >> kPageShift) + i);
  EXPECT_EQ(at<u8>(kBase + kLoad), static_cast<u8>(kernel.segments[0].content[0]));
  EXPECT_EQ(built.entry.stack % kPageSize, 0u);
  EXPECT_TRUE(writable(built.entry.stack - 8));
  EXPECT_GT(built.entry.stack, built.entry.start_info);
  EXPECT_THAT(built.description, HasSubstr("Xen PV"));
}

TEST_F(BuilderTest, StartInfo) {
  ASSERT_EQ(build_it(), "");
  EXPECT_STREQ(info().magic, "xen-3.0-x86_64");
  EXPECT_EQ(info().nr_pages, kFrames);
  EXPECT_EQ(info().shared_info, layout.shared_info << kPageShift);
  EXPECT_EQ(info().flags, 0u);
  EXPECT_EQ(info().mod_start, 0u);
  EXPECT_EQ(info().mod_len, 0u);
  EXPECT_STREQ(reinterpret_cast<const char*>(info().cmd_line), command_line.c_str());
  EXPECT_EQ(frame_of_entry(entry(info().pt_base)), built.entry.root);
  EXPECT_EQ(info().store_mfn, built.store_frame);
  EXPECT_EQ(info().console.domU.mfn, built.console_frame);
  EXPECT_NE(built.store_frame, built.console_frame);
  EXPECT_EQ(frame_of_entry(entry(built.entry.start_info)), built.start_info_frame);
  set_ports(built, memory, 5, 6);
  EXPECT_EQ(info().store_evtchn, 5u);
  EXPECT_EQ(info().console.domU.evtchn, 6u);
}

TEST_F(BuilderTest, AssistsThatNotesAskFor) {
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(built.vm_assists, 0u);
  const auto set_features = [&](std::string_view text) {
    std::erase_if(kernel.notes, [](const ImageNote& note) { return note.type == kXenNoteFeatures; });
    kernel.notes.push_back({.type = kXenNoteFeatures, .text = std::string{text}});
  };
  set_features("!writable_page_tables|pae_pgdir_above_4gb");
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(built.vm_assists, u64{1} << VMASST_TYPE_pae_extended_cr3);
  set_features("!writable_page_tables");
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(built.vm_assists, 0u);
}

TEST_F(BuilderTest, EventsStartMasked) {
  ASSERT_EQ(build_it(), "");
  const auto& shared = *reinterpret_cast<const shared_info_t*>(table(layout.shared_info));
  for (const vcpu_info& vcpu : shared.vcpu_info) EXPECT_EQ(vcpu.evtchn_upcall_mask, 1);
}

// The tables are what the hypervisor demands of tables, and there is room behind them.
TEST_F(BuilderTest, TablesAreValid) {
  ASSERT_EQ(build_it(), "");
  expect_valid_tables();
}

TEST_F(BuilderTest, TablesWithAListOfTheirOwnAreValid) {
  set_note(kXenNoteInitP2m, 0x8000000000);
  ASSERT_EQ(build_it(), "");
  expect_valid_tables();
}

TEST_F(BuilderTest, ListOfFramesBehindTheKernel) {
  ASSERT_EQ(build_it(), "");
  EXPECT_GE(info().mfn_list, kBase + kLoad + 0x5000);
  EXPECT_LT(info().mfn_list, built.entry.start_info);
  EXPECT_EQ(info().first_p2m_pfn, 0u);
  EXPECT_EQ(info().nr_p2m_frames, 0u);
  for (u64 i = 0; i < kFrames; ++i) ASSERT_EQ(at<u64>(info().mfn_list + i * 8), layout.first + i);
  EXPECT_TRUE(writable(info().mfn_list));
}

TEST_F(BuilderTest, ListOfFramesWhereItIsWanted) {
  constexpr u64 kWanted = 0x8000000000;
  set_note(kXenNoteInitP2m, kWanted);
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(info().mfn_list, kWanted);
  for (u64 i = 0; i < kFrames; ++i) ASSERT_EQ(at<u64>(kWanted + i * 8), layout.first + i);
  EXPECT_EQ(entry(kWanted + kFrames * 8), 0u);
  // The list, then its tables: one of each level.
  EXPECT_EQ(physical_frame(kWanted), info().first_p2m_pfn);
  EXPECT_EQ(info().nr_p2m_frames, kFrames * 8 / kPageSize + 3);
  const u64 first = layout.first + info().first_p2m_pfn;
  for (unsigned level = 2; level <= 4; ++level) {
    const u64 frame = frame_of_entry(entry(kWanted, level));
    EXPECT_GE(frame, first + kFrames * 8 / kPageSize) << level;
    EXPECT_LT(frame, first + info().nr_p2m_frames) << level;
  }
}

// Linux makes its direct map of these tables, and takes out of its own map what lies below the list.
TEST_F(BuilderTest, AllMemoryBelowAListOfItsOwnIsMapped) {
  set_note(kXenNoteInitP2m, 0x8000000000);
  ASSERT_EQ(build_it(), "");
  const u64 mapped = info().first_p2m_pfn << kPageShift;
  EXPECT_EQ((kBase + mapped) % 4_MiB, 0u);
  EXPECT_GT(mapped + info().nr_p2m_frames * kPageSize + 4_MiB, kFrames * kPageSize);
  for (u64 at = 0; at < mapped; at += kPageSize) ASSERT_EQ(physical_frame(kBase + at), at >> kPageShift);
  EXPECT_EQ(entry(kBase + mapped), 0u);
  EXPECT_EQ(info().nr_pt_frames, mapped / 2_MiB + 3);
}

TEST_F(BuilderTest, AnInitrdByFrameLiesBehindSuchAList) {
  set_note(kXenNoteInitP2m, 0x8000000000);
  set_note(kXenNoteModStartPfn, 1);
  initrd = file("initrd", pattern(5_MiB, 9));
  ASSERT_EQ(build_it(), "");
  EXPECT_GE(info().mod_start, info().first_p2m_pfn + info().nr_p2m_frames);
  EXPECT_LE(info().mod_start + 5_MiB / kPageSize, kFrames);
  EXPECT_GT((info().first_p2m_pfn << kPageShift) + 5_MiB + 8_MiB, kFrames * kPageSize);
  expect_valid_tables();
}

TEST_F(BuilderTest, HypercallPage) {
  set_note(kXenNoteHypercallPage, kBase + kLoad + 0x1000);
  ASSERT_EQ(build_it(), "");
  const auto* const page = &at<u8>(kBase + kLoad + 0x1000);
  const auto call = [&](unsigned number) { return std::vector<u8>(page + number * 32, page + number * 32 + 16); };
  EXPECT_EQ(call(17),
            (std::vector<u8>{0x51, 0x41, 0x53, 0xb8, 17, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3, 0xcc, 0xcc}));
  EXPECT_EQ(call(__HYPERVISOR_iret),
            (std::vector<u8>{0x51, 0x41, 0x53, 0x50, 0xb8, 23, 0, 0, 0, 0x0f, 0x05, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc}));
}

TEST_F(BuilderTest, NoHypercallPageUnlessAskedFor) {
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(at<u8>(kBase + kLoad + 0x1000), static_cast<u8>(kernel.segments[0].content[0x1000]));
}

TEST_F(BuilderTest, InitrdByAddress) {
  initrd = file("initrd", pattern(0x2345, 9));
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(info().mod_len, 0x2345u);
  EXPECT_EQ(info().flags & SIF_MOD_START_PFN, 0u);
  EXPECT_EQ(info().mod_start % kPageSize, 0u);
  EXPECT_EQ(at<u8>(info().mod_start + 0x1000), static_cast<u8>(pattern(0x2345, 9)[0x1000]));
}

TEST_F(BuilderTest, InitrdByFrameIsNotMapped) {
  set_note(kXenNoteModStartPfn, 1);
  initrd = file("initrd", pattern(0x2345, 9));
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(info().mod_len, 0x2345u);
  EXPECT_NE(info().flags & SIF_MOD_START_PFN, 0u);
  const auto* const bytes = reinterpret_cast<const u8*>(table(layout.first + info().mod_start));
  EXPECT_EQ(bytes[0x1000], static_cast<u8>(pattern(0x2345, 9)[0x1000]));
  EXPECT_EQ(entry(kBase + (info().mod_start << kPageShift)), 0u);
}

// Where physical addresses in the file are not those that a kernel of ours means.
TEST_F(BuilderTest, OffsetOfPhysicalAddresses) {
  set_note(kXenNoteVirtBase, kBase + 0x1000000);
  set_note(kXenNotePaddrOffset, 0x1000000);
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(physical_frame(kBase + kLoad), kLoad >> kPageShift);
}

TEST_F(BuilderTest, BaseZero) {
  set_note(kXenNoteVirtBase, 0);
  set_note(kXenNoteEntry, kLoad);
  kernel.segments[0].vaddr = kLoad;
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(physical_frame(kLoad), kLoad >> kPageShift);
}

TEST_F(BuilderTest, LongestCommandLine) {
  command_line = std::string(MAX_GUEST_CMDLINE - 1, 'a');
  ASSERT_EQ(build_it(), "");
  EXPECT_EQ(std::string_view{reinterpret_cast<const char*>(info().cmd_line)}, command_line);
}

// ---- what cannot be started

TEST_F(BuilderTest, CommandLineTooLong) {
  command_line = std::string(MAX_GUEST_CMDLINE, 'a');
  EXPECT_THAT(build_it(), HasSubstr("1024 bytes is too long"));
}

TEST_F(BuilderTest, NoXenNotes) {
  kernel.notes.clear();
  EXPECT_THAT(build_it(), HasSubstr("no Xen PV entry"));
  kernel.notes = {{kXenNoteEntry, kBase + kLoad, "GNU"}};
  EXPECT_THAT(build_it(), HasSubstr("no Xen PV entry"));
  kernel.notes = {{kXenNoteEntry, kBase + kLoad}};
  EXPECT_THAT(build_it(), HasSubstr("lack the virtual base"));
}

TEST_F(BuilderTest, EntryOutsideOfTheKernel) {
  for (const u64 bad : {u64{0}, kLoad, kBase, kBase + kLoad - 1, kBase + kLoad + 0x5000, ~u64{0}}) {
    set_note(kXenNoteEntry, bad);
    EXPECT_THAT(build_it(), HasSubstr("is not in any of its segments")) << std::hex << bad;
  }
}

TEST_F(BuilderTest, ThirtyTwoBitKernel) {
  kernel.is_64 = false;
  kernel.machine = kMachine386;
  kernel.segments[0].vaddr = 0;
  kernel.notes = {{kXenNoteEntry, kLoad}, {kXenNoteVirtBase, 0}};
  EXPECT_THAT(build_it(), HasSubstr("no Xen PV entry"));
}

TEST_F(BuilderTest, BasesThatCannotBe) {
  for (const u64 bad : {kBase + 1, kBase + 8, u64{0x0000800000000000}, u64{0xffff7ffffffff000}, kMachineToPhysicalStart,
                        kPerDomainStart, u64{0xffff87fffffff000}, ~u64{0}}) {
    set_note(kXenNoteVirtBase, bad);
    EXPECT_THAT(build_it(), HasSubstr("addresses that cannot be")) << std::hex << bad;
  }
}

TEST_F(BuilderTest, NoRoomBehindTheBase) {
  for (const u64 bad : {u64{0xfffffffffffff000}, u64{0xffffffffffc00000}, u64{0xffffffffffe00000}}) {
    set_note(kXenNoteVirtBase, bad);
    EXPECT_THAT(build_it(), HasSubstr("no room behind its base")) << std::hex << bad;
  }
}

TEST_F(BuilderTest, HypercallPagesThatCannotBe) {
  for (const u64 bad : {kBase + kLoad + 8, kBase - kPageSize, u64{0}, ~u64{0}}) {
    set_note(kXenNoteHypercallPage, bad);
    EXPECT_THAT(build_it(), HasSubstr("addresses that cannot be")) << std::hex << bad;
  }
}

// It is not the guest's memory, so it is not written.
TEST_F(BuilderTest, HypercallPageBehindMemory) {
  for (const u64 frame : {kFrames, layout.shared_info - layout.first, (u64{1} << 19) - 1}) {
    set_note(kXenNoteHypercallPage, kBase + (frame << kPageShift));
    EXPECT_EQ(build_it(), "");
    EXPECT_NE(*reinterpret_cast<const u8*>(table(layout.shared_info)), 0xcc);
  }
}

TEST_F(BuilderTest, ListsOfFramesThatCannotBe) {
  for (const u64 bad : {u64{kPageSize}, u64{0x8000001000}, kMachineToPhysicalStart, u64{0x0000800000000000},
                        u64{0xffff87ffc0000000}, ~u64{0}}) {
    set_note(kXenNoteInitP2m, bad);
    EXPECT_THAT(build_it(), HasSubstr("addresses that cannot be")) << std::hex << bad;
  }
}

TEST_F(BuilderTest, KernelOutsideOfMemory) {
  for (const u64 bad : {kFrames << kPageShift, (layout.shared_info - layout.first) << kPageShift, u64{1} << 40}) {
    kernel.segments[0].paddr = bad;
    EXPECT_NE(build_it(), "") << std::hex << bad;
  }
}

TEST_F(BuilderTest, TooLittleMemorySaysHowMuchItTakes) {
  kernel.segments[0].bss = (kFrames - 300) << kPageShift;
  const std::string why = build_it();
  EXPECT_THAT(why, HasSubstr("as a Xen PV guest, and the zone has " + std::to_string(kMebibytes)));
  EXPECT_THAT(why, HasSubstr("kernel-"));  // which file
}

TEST_F(BuilderTest, InitrdThatDoesNotFit) {
  for (const bool by_frame : {false, true}) {
    if (by_frame) set_note(kXenNoteModStartPfn, 1);
    initrd = file("initrd", ImageBytes((kFrames << kPageShift) - kLoad));
    EXPECT_THAT(build_it(), HasSubstr("does not fit"));
  }
}

// All of memory is in use before it, and what is behind memory is not for it.
TEST_F(BuilderTest, InitrdWithNothingLeft) {
  set_note(kXenNoteModStartPfn, 1);
  initrd = file("initrd", pattern(0x1000, 9));
  ASSERT_EQ(build_it(), "");
  const u64 room = kFrames - info().mod_start;  // of frames behind the rest, which is 4 MiB aligned
  kernel.segments[0].bss += room << kPageShift;
  EXPECT_THAT(build_it(), HasSubstr("needs at least"));
}

TEST_F(BuilderTest, FilesThatAreNotThere) {
  initrd = "/nonexistent/initrd";
  EXPECT_THAT(build_it(), HasSubstr("/nonexistent/initrd"));
  const auto made = build({"/nonexistent/kernel", "", ""}, physical, layout);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("/nonexistent/kernel"));
}

TEST_F(BuilderTest, TruncatedAtEachPlace) {
  const ImageBytes whole = make_elf(kernel);
  for (u64 size = 0; size < whole.size(); size += size < 256 ? 7 : 997)
    EXPECT_NE(build_image(ImageBytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))), "") << size;
}

}  // namespace
}  // namespace bulkhead::abi::xen::pv
