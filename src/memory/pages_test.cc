// Memory of our own, and making it large beside whoever uses it.
#include "memory/pages.h"

#include <gtest/gtest.h>

#include "memory/large_page_thread.h"
#include "memory/large_pages.h"

namespace bulkhead {
namespace {

TEST(Pages, ReadAsZeroAndLieWhereLargePagesDo) {
  for (const u64 size : {u64{1}, u64{4096}, 3_MiB + 5}) {
    auto pages = Pages::allocate(size);
    ASSERT_TRUE(pages);
    ASSERT_EQ(pages->bytes().size(), size);
    EXPECT_EQ(reinterpret_cast<u64>(pages->bytes().data()) % kLargePage, 0u);
    EXPECT_EQ(pages->bytes().front(), std::byte{0});
    EXPECT_EQ(pages->bytes().back(), std::byte{0});
    pages->bytes().back() = std::byte{1};
  }
  auto none = Pages::allocate(0);
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->bytes().empty());
}

TEST(Pages, MoreThanThereIsIsAnError) { EXPECT_FALSE(Pages::allocate(u64{1} << 60)); }

TEST(LargePageThread, WhatIsThereStaysWhileItIsWrittenToo) {
  auto pages = Pages::allocate(16_MiB);
  ASSERT_TRUE(pages);
  std::byte* const at = pages->bytes().data();
  LargePageThread thread;
  for (unsigned round = 0; round < 3; ++round) {  // it ends when there is nothing to do, and begins again
    thread.ask(at, 8_MiB);
    thread.ask(at + 8_MiB, 8_MiB);
    for (u64 i = 0; i < 16_MiB; i += 512) at[i] = static_cast<std::byte>(i >> 9);
    for (u64 i = 0; i < 16_MiB; i += 512) ASSERT_EQ(at[i], static_cast<std::byte>(i >> 9));
  }
  thread.ask(at, 0);
}

TEST(LargePageThread, EndsWithWorkLeft) {
  auto pages = Pages::allocate(64_MiB);
  ASSERT_TRUE(pages);
  LargePageThread thread;
  thread.ask(pages->bytes().data(), 64_MiB);
}

}  // namespace
}  // namespace bulkhead
