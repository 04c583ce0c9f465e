#include "engine/dbt/cache/code_cache.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace bulkhead::engine::dbt {
namespace {

class CodeCacheTest : public testing::Test {
 protected:
  CodeCacheTest() : cache_{*CodeCache::create(1 << 20)} {}

  Block* add(u64 gpa, u64 rip, u32 key, u32 code_size = 64) {
    Block* const block = cache_->allocate_array<Block>(1);
    *block = Block{.rip = rip,
                   .gpa = gpa,
                   .key = key,
                   .guest_size = 8,
                   .mark_count = 0,
                   .code = cache_->memory().begin() + next_,
                   .unpolled = cache_->memory().begin() + next_ + 4,
                   .code_size = code_size,
                   .reach = {},
                   .valid = true,
                   .crosses_page = false,
                   .second_gpa = 0,
                   .marks = nullptr,
                   .next_in_bucket = nullptr,
                   .incoming = nullptr};
    block->reach.add(gpa % kPageSize, gpa % kPageSize + 8);
    next_ += code_size;
    cache_->insert(block);
    return block;
  }
  Link* add_link(Block& from) {
    u8* const site = cache_->memory().writable() + (from.code - cache_->memory().begin());
    Link* const link = cache_->allocate_array<Link>(1);
    *link = Link{.site = site,
                 .stub = from.code + 32,
                 .site_end = from.code + 4,
                 .target_rip = 0,
                 .to = nullptr,
                 .next_incoming = nullptr};
    return link;
  }
  i32 relative(const Link& link) {
    i32 value;
    std::memcpy(&value, link.site, sizeof value);
    return value;
  }
  // Whether blocks are left on the page.
  bool invalidate(u64 gpa, u64 size = kPageSize) {
    return cache_->invalidate(gpa, size, [this](Block&) { ++forgotten_; });
  }

  std::unique_ptr<CodeCache> cache_;
  u32 next_ = 0;
  unsigned forgotten_ = 0;
};

TEST_F(CodeCacheTest, FindsByPlaceAddressAndKey) {
  Block* const block = add(0x1000, 0x401000, 1);
  EXPECT_EQ(cache_->find(0x1000, 0x401000, 1), block);
  EXPECT_EQ(cache_->find(0x1000, 0x401000, 2), nullptr);
  EXPECT_EQ(cache_->find(0x1000, 0x501000, 1), nullptr);
  EXPECT_EQ(cache_->find(0x2000, 0x401000, 1), nullptr);
}

TEST_F(CodeCacheTest, FindsTheBlockOfAHostAddress) {
  Block* const first = add(0x1000, 0x1000, 0);
  Block* const second = add(0x1040, 0x1040, 0);
  EXPECT_EQ(cache_->containing(first->code), first);
  EXPECT_EQ(cache_->containing(first->code + 63), first);
  EXPECT_EQ(cache_->containing(second->code), second);
  EXPECT_EQ(cache_->containing(second->code + 64), nullptr);
}

TEST_F(CodeCacheTest, ForwardLinksSpareThePoll) {
  Block* const from = add(0x1000, 0x1000, 0);
  Block* const to = add(0x1100, 0x1100, 0);
  Link* const link = add_link(*from);
  link->backward = false;
  cache_->link(*link, *to);
  EXPECT_EQ(link->site_end + relative(*link), to->unpolled);
}

TEST_F(CodeCacheTest, LinkLeadsToTheBlockUntilItsPageIsWritten) {
  Block* const from = add(0x1000, 0x1000, 0);
  Block* const to = add(0x2000, 0x2000, 0);
  Link* const link = add_link(*from);
  cache_->link(*link, *to);
  EXPECT_EQ(link->site_end + relative(*link), to->code);
  invalidate(0x2000);
  EXPECT_EQ(link->site_end + relative(*link), link->stub);
  EXPECT_EQ(link->to, nullptr);
  EXPECT_FALSE(to->valid);
  EXPECT_EQ(cache_->find(0x2000, 0x2000, 0), nullptr);
  EXPECT_EQ(cache_->find(0x1000, 0x1000, 0), from);
  EXPECT_EQ(forgotten_, 1u);
  invalidate(0x2000);
  EXPECT_EQ(forgotten_, 1u);
}

TEST_F(CodeCacheTest, BlockGoesWithAnyPageItDependsOn) {
  Block* const block = add(0x1000, 0x1000, 0);
  cache_->depend(*block, 0x5000);
  invalidate(0x5000);
  EXPECT_FALSE(block->valid);
  invalidate(0x1000);
  EXPECT_EQ(forgotten_, 1u);
}

TEST_F(CodeCacheTest, AWriteDropsWhatWasMadeFromItsBytes) {
  Block* const before = add(0x1000, 0x1000, 0);
  Block* const written = add(0x1008, 0x1008, 0);
  Block* const twin = add(0x1008, 0x1008, 1);
  Block* const behind = add(0x1010, 0x1010, 0);
  EXPECT_TRUE(invalidate(0x100f, 1));
  EXPECT_TRUE(before->valid && behind->valid);
  EXPECT_FALSE(written->valid || twin->valid);
  EXPECT_EQ(cache_->find(0x1010, 0x1010, 0), behind);
  EXPECT_TRUE(invalidate(0x1018, 8));
  EXPECT_TRUE(behind->valid);
  EXPECT_FALSE(invalidate(0x1007, 10));
  EXPECT_FALSE(before->valid || behind->valid);
  EXPECT_EQ(forgotten_, 4u);
}

TEST_F(CodeCacheTest, ABlockReachesToAllThatItWasMadeFrom) {
  Block* const block = add(0x1000, 0x1000, 0);
  block->reach.add(0x80, 0x84);  // the target of its jump, where it looked at the flags
  EXPECT_TRUE(invalidate(0x1084, 4));
  EXPECT_FALSE(invalidate(0x1083, 1));
  EXPECT_FALSE(block->valid);
}

TEST_F(CodeCacheTest, OfAnotherPageEveryByteCounts) {
  Block* const block = add(0x1000, 0x1000, 0);
  cache_->depend(*block, 0x5000);
  EXPECT_FALSE(invalidate(0x5ff8, 8));
  EXPECT_FALSE(block->valid);
}

TEST_F(CodeCacheTest, AfterManyWritesThePageHoldsNoCode) {
  Block* const block = add(0x1000, 0x1000, 0);
  for (unsigned i = 0; i < CodeCache::kMaxWrites; ++i) EXPECT_TRUE(invalidate(0x1800, 8));
  EXPECT_FALSE(invalidate(0x1800, 8));
  EXPECT_FALSE(block->valid);
  Block* const again = add(0x1000, 0x1000, 0);
  EXPECT_TRUE(invalidate(0x1800, 8));  // it counts anew
  EXPECT_TRUE(again->valid);
}

TEST_F(CodeCacheTest, DescriptionsAreBounded) {
  std::size_t allocated = 0;
  while (cache_->allocate(1024) != nullptr) allocated += 1024;
  EXPECT_LE(allocated, std::size_t{1} << 20);
  EXPECT_FALSE(cache_->has_room_for_descriptions(1024));
  cache_->clear();
  EXPECT_NE(cache_->allocate(1024), nullptr);
}

TEST_F(CodeCacheTest, WrittenThroughOneAddressReadThroughTheOther) {
  u8* const writable = cache_->memory().writable();
  writable[100] = 0xc3;
  EXPECT_EQ(cache_->memory().executable(writable + 100)[0], 0xc3);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
