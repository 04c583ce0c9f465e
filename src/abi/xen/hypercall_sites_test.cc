#include "abi/xen/hypercall_sites.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace bulkhead::abi::xen {
namespace {

using Bytes = std::vector<u8>;
constexpr u8 kOut[] = {0xe7, 0xe8};

unsigned replace(Bytes& image) { return replace_hypercalls(std::as_writable_bytes(std::span{image}), kOut); }

TEST(HypercallSites, APairThatLeavesByTheSameJumpIsReplaced) {
  // vmmcall; jmp +0x30; padding; vmcall; jmp to the same place
  Bytes image = {0x90, 0x0f, 0x01, 0xd9, 0xe9, 0x30, 0, 0, 0, 0xcc, 0xcc,
                 0xcc, 0x0f, 0x01, 0xc1, 0xe9, 0x25, 0, 0, 0, 0xcc};
  EXPECT_EQ(replace(image), 2u);
  EXPECT_EQ(image, (Bytes{0x90, 0xe7, 0xe8, 0x90, 0xe9, 0x30, 0, 0, 0, 0xcc, 0xcc,
                          0xcc, 0xe7, 0xe8, 0x90, 0xe9, 0x25, 0, 0, 0, 0xcc}));
}

TEST(HypercallSites, APairOfPlainReturnsIsReplaced) {
  Bytes image = {0x0f, 0x01, 0xd9, 0xc3, 0xcc, 0xcc, 0x0f, 0x01, 0xc1, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc};
  EXPECT_EQ(replace(image), 2u);
}

TEST(HypercallSites, OtherBytesAreLeftAlone) {
  for (Bytes image :
       {Bytes{0x0f, 0x01, 0xd9}, Bytes{0x0f, 0x01, 0xd9, 0xc3},
        Bytes{0xf3, 0x0f, 0x01, 0xd9, 0x8b, 0x97, 0x98, 0x0f, 0x01, 0xc1, 0xc3, 0, 0, 0, 0},  // no way out
        Bytes{0x0f, 0x01, 0xd9, 0xe9, 0x30, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xe9, 0x30, 0, 0, 0},  // two places
        Bytes{0x0f, 0x01, 0xd9, 0xc3, 0xcc, 0x0f, 0x01, 0xc1, 0x5b, 0xc3, 0, 0, 0, 0}, Bytes{}}) {
    const Bytes before = image;
    EXPECT_EQ(replace(image), 0u);
    EXPECT_EQ(image, before);
  }
  Bytes far(200, 0xcc);
  std::copy_n(Bytes{0x0f, 0x01, 0xd9, 0xc3}.begin(), 4, far.begin());
  std::copy_n(Bytes{0x0f, 0x01, 0xc1, 0xc3}.begin(), 4, far.begin() + 150);
  EXPECT_EQ(replace(far), 0u);
}

TEST(HypercallSites, WhatEveryHostTrapsIsCommon) {
  EXPECT_TRUE(is_common_hypercall(std::array<u8, 3>{0x0f, 0x01, 0xc1}));
  EXPECT_TRUE(is_common_hypercall(std::array<u8, 3>{0x0f, 0x01, 0xd9}));
  EXPECT_FALSE(is_common_hypercall(kOut));
}

}  // namespace
}  // namespace bulkhead::abi::xen
