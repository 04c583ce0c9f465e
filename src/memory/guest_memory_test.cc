#include "memory/guest_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

namespace bulkhead {
namespace {

GuestMemory two_ranges() {
  auto memory = GuestMemory::create({{{0}, 64_KiB}, {{1_MiB}, 64_KiB}});
  EXPECT_TRUE(memory);
  return std::move(*memory);
}

TEST(GuestMemory, StartsAsZeroesAndKeepsWhatIsStored) {
  const GuestMemory memory = two_ranges();
  EXPECT_EQ(memory.size(), 128_KiB);
  EXPECT_EQ(memory.load<u64>({1_MiB}), 0u);
  EXPECT_TRUE(memory.store({1_MiB + 8}, u32{0xdeadbeef}));
  EXPECT_EQ(memory.load<u32>({1_MiB + 8}), 0xdeadbeefu);
  EXPECT_EQ(memory.load<u32>({8}), 0u);
}

TEST(GuestMemory, HostAndCopySeeTheSameBytes) {
  const GuestMemory memory = two_ranges();
  std::byte* at = memory.host({0x1000}, 4);
  ASSERT_NE(at, nullptr);
  *at = std::byte{0x7f};
  EXPECT_EQ(memory.load<u8>({0x1000}), 0x7f);
}

TEST(GuestMemory, CopiesSpanRangesThatTouch) {
  const auto memory = GuestMemory::create({{{0}, 4_KiB}, {{4_KiB}, 4_KiB}});
  ASSERT_TRUE(memory);
  std::array<u8, 64> in{}, out{};
  std::iota(in.begin(), in.end(), u8{1});
  EXPECT_TRUE(memory->write({4_KiB - 32}, std::as_bytes(std::span{in})));
  EXPECT_TRUE(memory->read({4_KiB - 32}, std::as_writable_bytes(std::span{out})));
  EXPECT_EQ(in, out);
  EXPECT_EQ(memory->host({4_KiB - 32}, 64), nullptr) << "the two may lie apart on the host";
}

TEST(GuestMemory, APcHasAHoleBelowFourGiB) {
  const auto memory = GuestMemory::create_pc(16_MiB, {12_MiB});
  ASSERT_TRUE(memory);
  ASSERT_EQ(memory->ranges().size(), 2u);
  EXPECT_EQ(memory->ranges()[0].size, 12_MiB);
  EXPECT_EQ(memory->ranges()[1].start, Gpa{4_GiB});
  EXPECT_EQ(memory->ranges()[1].size, 4_MiB);
  const auto small = GuestMemory::create_pc(8_MiB, {12_MiB});
  ASSERT_TRUE(small);
  EXPECT_EQ(small->ranges().size(), 1u);
}

TEST(GuestMemory, CanBeMovedWithoutLosingTheMapping) {
  GuestMemory first = two_ranges();
  ASSERT_TRUE(first.store({0}, u8{9}));
  const GuestMemory second{std::move(first)};
  EXPECT_EQ(second.load<u8>({0}), 9);
}

TEST(GuestMemory, RefusesLayoutsThatAreNotValid) {
  EXPECT_FALSE(GuestMemory::create({{{1}, 4_KiB}}));
  EXPECT_FALSE(GuestMemory::create({{{0}, 100}}));
  EXPECT_FALSE(GuestMemory::create({{{0}, 8_KiB}, {{4_KiB}, 8_KiB}}));
  EXPECT_FALSE(GuestMemory::create({{{0}, 0}}));
}

TEST(GuestMemory, WhatIsNotRamIsRefused) {
  const GuestMemory memory = two_ranges();
  EXPECT_FALSE(memory.load<u8>({64_KiB}));
  EXPECT_FALSE(memory.load<u8>({1_MiB - 1}));
  EXPECT_FALSE(memory.store({~u64{0}}, u8{1}));
  EXPECT_EQ(memory.host({64_KiB}, 1), nullptr);
}

TEST(GuestMemory, AnAccessThatEndsInAHoleIsRefused) {
  const GuestMemory memory = two_ranges();
  EXPECT_FALSE(memory.load<u64>({64_KiB - 4}));
  EXPECT_FALSE(memory.store({1_MiB + 64_KiB - 1}, u16{1}));
  EXPECT_TRUE(memory.store({1_MiB + 64_KiB - 2}, u16{1}));
}

TEST(GuestMemory, LengthsThatWrapAreRefused) {
  const GuestMemory memory = two_ranges();
  EXPECT_EQ(memory.host({0x1000}, ~u64{0}), nullptr);
  EXPECT_EQ(memory.host({0x1000}, ~u64{0} - 0xfff), nullptr);
  EXPECT_EQ(memory.host({~u64{0} - 3}, 8), nullptr);
  EXPECT_FALSE(memory.load<u64>({~u64{0} - 3}));
}

TEST(GuestMemory, NothingIsAlwaysThere) {
  const GuestMemory memory = two_ranges();
  EXPECT_TRUE(memory.read({0}, {}));
  EXPECT_NE(memory.host({64_KiB}, 0), nullptr) << "an empty range at the very end";
}

struct Extra : ::testing::Test {
  GuestMemory memory = *GuestMemory::create({{Gpa{0}, 64_KiB}, {Gpa{1_MiB}, 64_KiB}}, 3);
};

TEST_F(Extra, OutsideOfRamAPageAppearsAndGoes) {
  EXPECT_EQ(memory.host(Gpa{2_MiB}, 8), nullptr);
  ASSERT_TRUE(memory.place_extra(1, Gpa{2_MiB}));
  ASSERT_TRUE(memory.store(Gpa{2_MiB + 8}, u32{7}));
  EXPECT_EQ(*reinterpret_cast<u32*>(memory.extra_page(1) + 8), 7u);
  EXPECT_EQ(memory.extra_at(Gpa{2_MiB + 100}), 1u);
  EXPECT_EQ(memory.page_number(Gpa{2_MiB}), 33u);
  EXPECT_EQ(memory.host(Gpa{2_MiB + 4000}, 200), nullptr);
  memory.remove_extra(1);
  EXPECT_FALSE(memory.load<u32>(Gpa{2_MiB}));
}

TEST_F(Extra, InRamItHidesAPageAndGivesItBack) {
  std::byte* const host = memory.host(Gpa{1_MiB + 4096}, 4);
  ASSERT_TRUE(memory.store(Gpa{1_MiB + 4096}, u32{11}));
  ASSERT_TRUE(memory.place_extra(0, Gpa{1_MiB + 4096}));
  EXPECT_EQ(memory.host(Gpa{1_MiB + 4096}, 4), host);
  EXPECT_EQ(memory.load<u32>(Gpa{1_MiB + 4096}), 0u);
  *reinterpret_cast<u32*>(memory.extra_page(0)) = 5;
  EXPECT_EQ(memory.load<u32>(Gpa{1_MiB + 4096}), 5u);
  ASSERT_TRUE(memory.place_extra(0, Gpa{4_MiB}));  // moves, with its contents
  EXPECT_EQ(memory.load<u32>(Gpa{1_MiB + 4096}), 11u);
  EXPECT_EQ(memory.load<u32>(Gpa{4_MiB}), 5u);
}

TEST_F(Extra, OnePageToAFrame) {
  ASSERT_TRUE(memory.place_extra(0, Gpa{4096}));
  EXPECT_TRUE(memory.place_extra(0, Gpa{4096}));
  EXPECT_FALSE(memory.place_extra(1, Gpa{4096}));
  EXPECT_FALSE(memory.extra_place(1));
  EXPECT_FALSE(memory.extra_place(99));
}

TEST_F(Extra, NumbersByHostAddress) {
  EXPECT_EQ(memory.extra_number(memory.extra_page(2)), 2u);
  EXPECT_FALSE(memory.extra_number(memory.extra_page(2) + 1));
  EXPECT_FALSE(memory.extra_number(memory.extra_page(2) + 4096));
  EXPECT_FALSE(memory.extra_number(memory.host(Gpa{0}, 1)));
}

TEST_F(Extra, DiscardedRamReadsAsZero) {
  ASSERT_TRUE(memory.store(Gpa{8192}, u64{1}));
  memory.discard(Gpa{8192}, 4096);
  EXPECT_EQ(memory.load<u64>(Gpa{8192}), 0u);
  ASSERT_TRUE(memory.store(Gpa{8192}, u64{2}));
  EXPECT_EQ(memory.load<u64>(Gpa{8192}), 2u);
}

TEST(GuestMemory, LargePagesChangeNothingThatIsThere) {
  auto memory = GuestMemory::create({{{0}, 5_MiB}, {{8_MiB}, 1_MiB}}, 1);
  ASSERT_TRUE(memory);
  EXPECT_EQ(reinterpret_cast<u64>(memory->host({0}, 1)) % 2_MiB, 0u) << "the host can back it by large pages";
  ASSERT_TRUE(memory->store({2_MiB + 4_KiB}, u64{5}));
  ASSERT_TRUE(memory->place_extra(0, Gpa{2_MiB}));
  ASSERT_TRUE(memory->store({2_MiB}, u64{6}));
  memory->want_large_pages();
  memory->expect_use({1_MiB}, 16_MiB);  // also what is no RAM, and beyond the end
  memory->expect_use({~u64{0} - 4_KiB}, 4_KiB);
  memory->expect_use({0}, 0);
  memory->expect_use_soon({0}, 5_MiB);
  memory->expect_use_soon({2_MiB}, 2_MiB);
  EXPECT_EQ(memory->load<u64>({2_MiB + 4_KiB}), 5u);
  EXPECT_EQ(memory->load<u64>({2_MiB}), 6u);
  EXPECT_EQ(memory->load<u64>({4_MiB}), 0u);
  memory->remove_extra(0);
  EXPECT_EQ(memory->load<u64>({2_MiB}), 0u);
  EXPECT_EQ(memory->load<u64>({2_MiB + 4_KiB}), 5u);
}

}  // namespace
}  // namespace bulkhead
