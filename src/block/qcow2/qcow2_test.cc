#include <gmock/gmock.h>

#include "block/qcow2/compression.h"
#include "block/qcow2/layout.h"
#include "block/qcow2/refcounts.h"

namespace bulkhead::block::qcow2 {
namespace {

namespace spec = bulkhead::spec::qcow2;
namespace at = spec::header;
using testing::HasSubstr;

Header sample() {
  Header header;
  header.size = 1_GiB;
  header.l1_size = 2;
  header.l1_offset = 3 * 64_KiB;
  header.refcount_table_offset = 64_KiB;
  header.refcount_table_clusters = 1;
  return header;
}

// A good header with one thing changed.
template <class T>
std::string refusal(unsigned offset, T value) {
  auto bytes = serialize_header(sample());
  bytes->resize(64_KiB);
  store_be<T>(&(*bytes)[offset], value);
  const auto parsed = parse_header(*bytes);
  return parsed ? "accepted" : parsed.error().message;
}

TEST(Qcow2Header, ComesBackAsItWas) {
  Header header = sample();
  header.backing_file = "base.qcow2";
  header.backing_format = "qcow2";
  header.compatible = spec::kLazyRefcounts;
  header.unknown.push_back({0x12345678, {std::byte{1}, std::byte{2}, std::byte{3}}});
  const auto bytes = serialize_header(header);
  ASSERT_TRUE(bytes);
  const auto again = parse_header(*bytes);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->size, header.size);
  EXPECT_EQ(again->backing_file, "base.qcow2");
  EXPECT_EQ(again->backing_format, "qcow2");
  EXPECT_EQ(again->compatible, header.compatible);
  ASSERT_EQ(again->unknown.size(), 1);
  EXPECT_EQ(again->unknown[0].data.size(), 3);
}

TEST(Qcow2Header, VersionTwoHasNoFeatures) {
  Header header = sample();
  header.version = 2;
  const auto bytes = serialize_header(header);
  ASSERT_TRUE(bytes);
  const auto again = parse_header(*bytes);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->refcount_order, 4);
  EXPECT_EQ(again->incompatible, 0);
}

TEST(Qcow2Header, FitsIntoTheSmallestCluster) {
  Header header = sample();
  header.cluster_bits = 9;
  header.size = 64_KiB;
  header.backing_file = std::string(300, 'b');
  EXPECT_TRUE(serialize_header(header));
  header.backing_file = std::string(1000, 'b');
  EXPECT_FALSE(serialize_header(header));
}

TEST(Qcow2Header, UnknownFeaturesAreRefusedByName) {
  auto bytes = serialize_header(sample());
  store_be<u64>(&(*bytes)[at::kIncompatible], u64{1} << 9);
  // The first row of the feature name table becomes theirs.
  const auto table = std::search(bytes->begin(), bytes->end(), std::begin("dirty bit"), std::end("dirty bit") - 1,
                                 [](std::byte a, char b) { return static_cast<char>(a) == b; });
  ASSERT_NE(table, bytes->end());
  table[-1] = std::byte{9};
  std::memcpy(&*table, "time\x1btravel", 12);
  EXPECT_THAT(parse_header(*bytes).error().message, HasSubstr("'time?travel' (bit 9)"));
  EXPECT_THAT(refusal<u64>(at::kIncompatible, u64{1} << 40), HasSubstr("bit 40"));
}

TEST(Qcow2Header, WhatCannotBeIsRefused) {
  EXPECT_THAT(refusal<u32>(at::kMagicAt, 1), HasSubstr("not a qcow2"));
  EXPECT_THAT(refusal<u32>(at::kVersion, 4), HasSubstr("version 4"));
  EXPECT_THAT(refusal<u32>(at::kClusterBits, 8), HasSubstr("2^8"));
  EXPECT_THAT(refusal<u32>(at::kClusterBits, 22), HasSubstr("2^22"));
  EXPECT_THAT(refusal<u32>(at::kClusterBits, ~u32{0}), HasSubstr("2^4294967295"));
  EXPECT_THAT(refusal<u64>(at::kSize, ~u64{0}), HasSubstr("too many"));
  EXPECT_THAT(refusal<u64>(at::kSize, u64{1} << 50), HasSubstr("too few"));
  EXPECT_THAT(refusal<u32>(at::kL1Size, ~u32{0}), HasSubstr("L1 table"));
  EXPECT_THAT(refusal<u64>(at::kL1Offset, 0), HasSubstr("L1 table"));
  EXPECT_THAT(refusal<u64>(at::kL1Offset, 65537), HasSubstr("L1 table"));
  EXPECT_THAT(refusal<u64>(at::kL1Offset, ~u64{0xffff}), HasSubstr("L1 table"));
  EXPECT_THAT(refusal<u32>(at::kRefcountTableClusters, ~u32{0}), HasSubstr("refcount table"));
  EXPECT_THAT(refusal<u32>(at::kRefcountTableClusters, 0), HasSubstr("refcount table"));
  EXPECT_THAT(refusal<u32>(at::kSnapshotCount, ~u32{0}), HasSubstr("snapshots"));
  EXPECT_THAT(refusal<u32>(at::kRefcountOrder, 7), HasSubstr("2^7"));
  EXPECT_THAT(refusal<u32>(at::kHeaderLength, 96), HasSubstr("header"));
  EXPECT_THAT(refusal<u32>(at::kHeaderLength, ~u32{7}), HasSubstr("header"));
  EXPECT_THAT(refusal<u32>(at::kCryptMethod, 3), HasSubstr("encrypted"));
  EXPECT_THAT(refusal<u32>(at::kCryptMethod, 2), HasSubstr("LUKS header"));
  EXPECT_THAT(refusal<u8>(at::kCompression, 1), HasSubstr("compression"));
  EXPECT_THAT(refusal<u64>(at::kBackingOffset, ~u64{0}), HasSubstr("backing"));
}

TEST(Qcow2Header, ExtensionsThatLeaveTheHeaderAreRefused) {
  auto bytes = serialize_header(sample());
  store_be<u32>(&(*bytes)[spec::kHeaderLengthCompression + 4], 0xfffffff8);
  EXPECT_THAT(parse_header(*bytes).error().message, HasSubstr("longer than the header"));
}

TEST(Qcow2Header, ShortFilesAreRefused) {
  const auto bytes = serialize_header(sample());
  for (std::size_t size = 0; size < spec::kHeaderLengthCompression; ++size)
    EXPECT_FALSE(parse_header(std::span{*bytes}.first(size)));
}

TEST(Qcow2Layout, CompressedPlacesComeBack) {
  for (unsigned cluster_bits = 9; cluster_bits <= 21; ++cluster_bits) {
    const Layout layout{.cluster_bits = cluster_bits};
    const CompressedPlace place = layout.place(layout.descriptor(123457, layout.cluster() - 1));
    EXPECT_EQ(place.offset, 123457);
    EXPECT_GE(place.bytes, layout.cluster() - 1);
    EXPECT_LT(place.bytes, layout.cluster() + 512);
  }
}

TEST(Qcow2Layout, ContradictionsAreBad) {
  Layout layout;
  EXPECT_EQ(layout.kind({0x10200, 0}, 0), ExtentKind::kBad);  // within a cluster
  layout.extended = true;
  layout.entry_bits = 4;
  EXPECT_EQ(layout.kind({0x10000, 1 | u64{1} << 32}, 0), ExtentKind::kBad);  // both allocated and zero
  EXPECT_EQ(layout.kind({0, 1}, 0), ExtentKind::kBad);                       // allocated nowhere
  EXPECT_EQ(layout.kind({0x10000, 2}, 1), ExtentKind::kData);
  layout.external = true;
  EXPECT_EQ(layout.kind({spec::kCompressed, 0}, 0), ExtentKind::kBad);
}

TEST(Qcow2Refcounts, AreKeptInEveryWidth) {
  for (unsigned order = 0; order <= 6; ++order) {
    std::vector<std::byte> block(512);
    const u64 most = order == 6 ? ~u64{0} : (u64{1} << (1U << order)) - 1, count = (512 * 8) >> order;
    for (u64 i = 0; i < count; ++i) set_count(block.data(), order, i, (i * 7) & most);
    for (u64 i = 0; i < count; ++i) ASSERT_EQ(get_count(block.data(), order, i), (i * 7) & most) << order << " " << i;
  }
}

TEST(Qcow2Compression, ComesBackAndRefusesTheRest) {
  std::vector<std::byte> from(64_KiB), packed(64_KiB), to(64_KiB);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i / 100);
  for (const auto type : {spec::CompressionType::kDeflate, spec::CompressionType::kZstd}) {
    const u64 size = pack(type, from, packed);
    ASSERT_GT(size, 0);
    ASSERT_TRUE(unpack(type, std::span{packed}.first(size), to));
    EXPECT_EQ(from, to);
    EXPECT_FALSE(unpack(type, std::span{packed}.first(size / 2), to));
    EXPECT_FALSE(unpack(type, std::span{from}, to));
    EXPECT_FALSE(unpack(type, {}, to));
    EXPECT_EQ(pack(type, from, std::span{to}.first(8)), 0);
    // A cluster that unpacks to more than one never writes behind its end: it is cut there.
    std::vector<std::byte> small(512, std::byte{0x55});
    unpack(type, std::span{packed}.first(size), std::span{small}.first(256));
    EXPECT_EQ(small[256], std::byte{0x55});
  }
}

}  // namespace
}  // namespace bulkhead::block::qcow2
