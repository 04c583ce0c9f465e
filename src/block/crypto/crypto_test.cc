#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "base/big_endian.h"
#include "block/crypto/luks1.h"

namespace bulkhead::block {
namespace {

std::vector<std::byte> key_of(std::size_t bytes) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = std::byte{static_cast<u8>(i * 7 + 1)};
  return out;
}

TEST(SectorCipher, EveryModeComesBackAndSectorsDiffer) {
  for (const auto& [mode, bytes] : {std::pair{"xts-plain64", 64u},
                                    {"xts-plain64", 32u},
                                    {"xts-plain", 64u},
                                    {"cbc-plain64", 32u},
                                    {"cbc-plain", 16u},
                                    {"cbc-essiv:sha256", 32u}}) {
    const auto cipher = SectorCipher::create("aes", mode, key_of(bytes));
    ASSERT_TRUE(cipher) << mode;
    std::vector<std::byte> data(2048, std::byte{9}), before = data;
    ASSERT_TRUE((*cipher)->encrypt(5, data));
    EXPECT_NE(std::memcmp(&data[0], &data[512], 512), 0) << mode;
    // A sector does not depend on what is beside it.
    std::vector<std::byte> one(512, std::byte{9});
    ASSERT_TRUE((*cipher)->encrypt(6, one));
    EXPECT_EQ(std::memcmp(&data[512], one.data(), 512), 0) << mode;
    ASSERT_TRUE((*cipher)->decrypt(5, data));
    EXPECT_TRUE(data == before) << mode;
  }
}

TEST(SectorCipher, ManyThreadsAtOnce) {
  const auto cipher = SectorCipher::create("aes", "cbc-essiv:sha256", key_of(32));
  std::atomic<unsigned> wrong{0};
  std::vector<std::jthread> threads;
  for (unsigned who = 0; who < 6; ++who)
    threads.emplace_back([&, who] {
      for (unsigned round = 0; round < 200; ++round) {
        std::vector<std::byte> data(4096, std::byte{static_cast<u8>(who)}), before = data;
        (*cipher)->encrypt(round, data);
        (*cipher)->decrypt(round, data);
        if (data != before) ++wrong;
      }
    });
  threads.clear();
  EXPECT_EQ(wrong, 0u);
}

TEST(SectorCipher, WhatWeDoNotHaveIsNamed) {
  for (const auto& [cipher, mode, bytes] : {std::tuple{"serpent", "xts-plain64", 64u},
                                            {"aes", "xts-plain64", 48u},
                                            {"aes", "ctr-plain64", 32u},
                                            {"aes", "xts-benbi", 64u},
                                            {"aes", "", 32u},
                                            {"aes", "xts-essiv:sha256", 64u}}) {
    const auto made = SectorCipher::create(cipher, mode, key_of(bytes));
    ASSERT_FALSE(made) << cipher << mode;
    EXPECT_NE(made.error().message.find(cipher), std::string::npos);
  }
}

TEST(Luks1, TheRightPassphraseOpens) {
  const auto area = make_luks1("open", 5);
  ASSERT_TRUE(area);
  const auto header = parse_luks1(*area);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->uuid.size(), 36u);
  const auto right = unlock_luks1(*header, *area, "open");
  ASSERT_TRUE(right);
  std::vector<std::byte> data(512, std::byte{1});
  EXPECT_TRUE((*right)->encrypt(0, data));
  const auto again = unlock_luks1(*header, *area, "open");
  EXPECT_TRUE((*again)->decrypt(0, data));
  EXPECT_EQ(data[100], std::byte{1});
  EXPECT_FALSE(unlock_luks1(*header, *area, "shut"));
  EXPECT_FALSE(unlock_luks1(*header, std::span{*area}.first(5000), "open"));
}

TEST(Luks1, BadHeadersAreRefused) {
  const auto good = make_luks1("open", 1);
  ASSERT_TRUE(good);
  struct Case {
    std::size_t offset;
    u32 value;
    const char* said;
  };
  for (const Case& one : {Case{0, 1, "none"},
                          {108, 0, "0 bytes"},
                          {108, 1 << 20, "bytes"},
                          {164, 0, "rounds"},
                          {164, ~0u, "rounds"},
                          {208, 1, "slot 0"},
                          {208 + 4, ~0u, "slot 0"},
                          {208 + 40, ~0u, "slot 0"},
                          {208 + 44, 0, "slot 0"},
                          {208 + 44, 4001, "slot 0"},
                          {8, 0x01020304, "name"}}) {
    std::vector<std::byte> bad = *good;
    store_be(&bad[one.offset], one.value);
    const auto header = parse_luks1(bad);
    ASSERT_FALSE(header) << one.offset;
    EXPECT_NE(header.error().message.find(one.said), std::string::npos) << header.error().message;
  }
  EXPECT_FALSE(parse_luks1(std::span{*good}.first(591)));
  std::vector<std::byte> other = *good;
  std::memcpy(&other[72], "md4\0\0\0", 6);
  const auto header = parse_luks1(other);
  ASSERT_TRUE(header);
  EXPECT_NE(unlock_luks1(*header, other, "open").error().message.find("md4"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::block
