#include "engine/dbt/cpu/shared.h"

#include <gtest/gtest.h>

#include <set>

#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kPage = 0x5000;

class Observer final : public Cpu::CodeObserver {
 public:
  bool code_written(u64 gpa, u64 size) override {
    (size == kPageSize ? dropped : touched).insert(gpa);
    return left && size != kPageSize;
  }
  void mappings_changed(bool) override {}
  void mapping_changed(u64) override {}
  std::set<u64> dropped, touched;  // whole pages; bytes
  bool left = false;               // the page keeps code after a few bytes were written
};

class SharedTest : public testing::Test {
 protected:
  SharedTest() {
    for (unsigned i = 0; i < 2; ++i) {
      shared.cpus.push_back(std::make_unique<Cpu>(shared, i));
      Cpu& added = cpu(i);
      if (!added.lapic) added.lapic = std::make_unique<Lapic>(shared, i, added.s);
      added.reset(false);
      added.code_observer = &observer[i];
    }
  }
  static PartitionConfig config() { return {.vcpus = 2, .cpu_model = *make_cpu_model("host", 2), .options = {}}; }
  Cpu& cpu(unsigned i) { return *shared.cpus[i]; }
  bool asked(unsigned i) { return (cpu(i).s.pending.load() & kPendingInvalidate) != 0; }
  TlbEntry& write_entry(unsigned i, u64 page) {
    TlbEntry& entry = cpu(i).s.tlb[0][tlb_slot(page)];
    entry = {page, page, 0, page};
    shared.page_use(page).writers |= SharedState::mask_of(i);
    return entry;
  }

  GuestMemory memory = std::move(*GuestMemory::create({RamRange{Gpa{0}, 16_MiB}}));
  SharedState shared{config(), memory};
  Observer observer[2];
};

TEST_F(SharedTest, RamIsFoundAndHolesAreNot) {
  EXPECT_NE(shared.ram(0), nullptr);
  EXPECT_EQ(shared.ram(0x1234), shared.ram(0x1000));
  EXPECT_EQ(shared.ram(16_MiB), nullptr);
  EXPECT_EQ(shared.ram(~u64{0}), nullptr);
}

TEST_F(SharedTest, FirstMarkTellsTheOthersOnce) {
  shared.mark_code_page(cpu(0), kPage);
  EXPECT_EQ(shared.code_mask(kPage), 1);
  EXPECT_TRUE(asked(1));
  EXPECT_FALSE(asked(0));
  shared.take_requests(cpu(1));
  EXPECT_FALSE(asked(1));
  shared.mark_code_page(cpu(1), kPage);
  EXPECT_FALSE(asked(0));
}

TEST_F(SharedTest, MarkerLosesItsOwnDirectWrites) {
  TlbEntry& entry = write_entry(0, kPage);
  shared.mark_code_page(cpu(0), kPage);
  EXPECT_EQ(entry.write_tag, kNoTag);
  EXPECT_EQ(entry.read_tag, kPage);
}

TEST_F(SharedTest, NeighbourThatCouldWriteDirectlyMakesTheMarkerLookAgain) {
  TlbEntry& entry = write_entry(1, kPage);
  shared.mark_code_page(cpu(0), kPage);
  shared.take_requests(cpu(1));
  EXPECT_EQ(entry.write_tag, kNoTag);
  ASSERT_TRUE(asked(0));
  shared.take_requests(cpu(0));
  EXPECT_TRUE(observer[0].dropped.contains(kPage));
}

TEST_F(SharedTest, NeighbourThatCouldNotWriteCostsNothing) {
  shared.mark_code_page(cpu(0), kPage);
  shared.take_requests(cpu(1));
  EXPECT_FALSE(asked(0));
}

TEST_F(SharedTest, WriteTellsEveryHolderWhichBytes) {
  shared.mark_code_page(cpu(0), kPage);
  shared.mark_code_page(cpu(1), kPage);
  shared.take_requests(cpu(1));
  observer[0].left = true;
  shared.code_written(cpu(0), kPage + 0x10, 5);
  shared.take_requests(cpu(1));
  EXPECT_EQ(observer[0].touched, std::set<u64>{kPage + 0x10});
  EXPECT_EQ(observer[1].touched, std::set<u64>{kPage + 0x10});
  EXPECT_TRUE(observer[0].dropped.empty() && observer[1].dropped.empty());
  EXPECT_EQ(shared.code_mask(kPage), SharedState::mask_of(0));  // who has none left may write there again
}

TEST_F(SharedTest, HolderThatIsBusyLosesThePageAndIsToldOnce) {
  shared.mark_code_page(cpu(0), kPage);
  shared.mark_code_page(cpu(1), kPage);
  shared.take_requests(cpu(1));
  for (u64 i = 0; i < 5000; ++i) shared.code_written(cpu(0), kPage + i % 4096, 1);
  EXPECT_EQ(shared.code_mask(kPage), 0);
  ASSERT_TRUE(asked(1));
  shared.take_requests(cpu(1));
  EXPECT_EQ(observer[1].dropped, std::set<u64>{kPage});
}

TEST_F(SharedTest, WriteToAPageWithoutCodeTellsNobody) {
  shared.code_written(cpu(0), kPage, 8);
  shared.code_written(cpu(0), 64_MiB, 8);
  EXPECT_FALSE(asked(1));
  EXPECT_TRUE(observer[0].dropped.empty());
}

TEST_F(SharedTest, OverflowForgetsMoreNotLess) {
  for (u64 page = 0; page < 8_MiB; page += kPageSize) shared.mark_code_page(cpu(1), page);
  for (u64 page = 0; page < 8_MiB; page += kPageSize) shared.code_written(cpu(0), page, kPageSize);
  shared.take_requests(cpu(1));
  for (u64 page = 0; page < 8_MiB; page += kPageSize) EXPECT_TRUE(observer[1].dropped.contains(page)) << page;
}

TEST_F(SharedTest, OverflowOfMarksDropsDirectWritesToCodeOnly) {
  TlbEntry& code = write_entry(1, 7_MiB);
  TlbEntry& data = write_entry(1, 9_MiB + kPageSize);
  for (u64 page = 0; page < 8_MiB; page += kPageSize) shared.mark_code_page(cpu(0), page);
  shared.take_requests(cpu(1));
  EXPECT_EQ(code.write_tag, kNoTag);
  EXPECT_EQ(data.write_tag, 9_MiB + kPageSize);
  EXPECT_TRUE(asked(0));
}

TEST_F(SharedTest, RequestsAreTakenBeforeAnInterruptIsSent) {
  write_entry(1, kPage);
  shared.mark_code_page(cpu(0), kPage);
  ASSERT_TRUE(asked(1));
  cpu(1).lapic->mmio_write(lapic_reg::kCommand, 0x84000 | 0x61);
  EXPECT_FALSE(asked(1));
  EXPECT_TRUE(asked(0));
}

TEST_F(SharedTest, DeviceWriteIsHeardByEveryHolder) {
  shared.mark_code_page(cpu(0), kPage);
  shared.mark_code_page(cpu(1), kPage + kPageSize);
  const std::array<std::byte, 2 * kPageSize> bytes{};
  ASSERT_TRUE(memory.write(Gpa{kPage}, bytes));
  for (const unsigned i : {0u, 1u}) shared.take_requests(cpu(i));
  EXPECT_TRUE(observer[0].dropped.contains(kPage));
  EXPECT_TRUE(observer[1].dropped.contains(kPage + kPageSize));
}

}  // namespace
}  // namespace bulkhead::engine::dbt
