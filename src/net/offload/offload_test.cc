#include <gtest/gtest.h>

#include "net/offload/checksum.h"
#include "net/offload/segments.h"
#include "net/testing/packets.h"

namespace bulkhead::net {
namespace {

using testing::make_packet;
using testing::Packet;
using testing::PacketSpec;
using testing::sums_are_right;

std::span<std::byte> bytes(std::string& text) { return std::as_writable_bytes(std::span{text}); }
std::string pattern(std::size_t size) {
  std::string text(size, ' ');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 7 + i / 251);
  return text;
}

class EachKind : public ::testing::TestWithParam<PacketSpec> {
 protected:
  FrameHeader header(const Packet& packet, u16 segment) const {
    const PacketSpec& spec = GetParam();
    const u8 gso = spec.udp ? kGsoUdp : spec.version6 ? kGsoTcp6 : kGsoTcp4;
    return {kNeedsChecksum, gso, 0, segment, static_cast<u16>(packet.transport), static_cast<u16>(spec.udp ? 6 : 16)};
  }
};
INSTANTIATE_TEST_SUITE_P(Offload, EachKind,
                         ::testing::Values(PacketSpec{}, PacketSpec{.version6 = true}, PacketSpec{.udp = true},
                                           PacketSpec{.version6 = true, .udp = true}, PacketSpec{.vlan = true},
                                           PacketSpec{.version6 = true, .vlan = true, .extension = true},
                                           PacketSpec{.tcp_options = 40}));

TEST_P(EachKind, ChecksumIsCompleted) {
  for (const std::size_t size : {0u, 1u, 2u, 15u, 16u, 17u, 1459u, 60000u}) {
    Packet packet = make_packet(pattern(size), GetParam());
    FrameHeader asked = header(packet, 0);
    ASSERT_TRUE(complete_checksum(asked, bytes(packet.bytes)));
    EXPECT_EQ(asked.flags, 0);
    EXPECT_TRUE(sums_are_right(packet.bytes, packet.network, packet.transport, GetParam().version6, GetParam().udp));
  }
}

TEST_P(EachKind, SegmentsAreWholeFramesAndAllOfThePayload) {
  for (const std::size_t size : {1u, 1399u, 1400u, 1401u, 2800u, 60001u}) {
    const std::string payload = pattern(size);
    Packet packet = make_packet(payload, GetParam());
    Segments segments;
    ASSERT_TRUE(segments.begin(header(packet, 1400), bytes(packet.bytes)));
    std::string together;
    unsigned count = 0;
    for (; segments.any(); ++count) {
      const std::span<std::byte> one = segments.next();
      const std::string frame{reinterpret_cast<const char*>(one.data()), one.size()};
      ASSERT_TRUE(sums_are_right(frame, packet.network, packet.transport, GetParam().version6, GetParam().udp))
          << count;
      const u32 sequence = ntohl(*reinterpret_cast<const u32*>(&frame[packet.transport + 4]));
      if (GetParam().udp) {
        EXPECT_EQ(sequence >> 16, 8 + frame.size() - packet.payload);
      } else {
        EXPECT_EQ(sequence, static_cast<u32>(0xfffffff0u + together.size()));
        EXPECT_EQ(frame[packet.transport + 13], segments.any() ? 0x10 : 0x18) << "PSH is the last's";
      }
      together += frame.substr(packet.payload);
    }
    EXPECT_EQ(together, payload);
    EXPECT_EQ(count, (size + 1399) / 1400);
  }
}

TEST_P(EachKind, EveryTruncationIsRefusedOrHandled) {
  const Packet packet = make_packet(pattern(100), GetParam());
  for (std::size_t size = 0; size < packet.bytes.size(); ++size) {
    std::string part = packet.bytes.substr(0, size);
    Segments segments;
    const bool begun = segments.begin(header(packet, 10), bytes(part));
    EXPECT_EQ(begun, size > packet.payload) << size;
    while (segments.any()) segments.next();
    FrameHeader asked = header(packet, 0);
    EXPECT_EQ(complete_checksum(asked, bytes(part)), packet.transport + asked.checksum_offset + 2u <= size);
  }
}

TEST_P(EachKind, EveryFlippedHeaderByteIsSurvived) {
  const Packet packet = make_packet(pattern(3000), GetParam());
  for (std::size_t at = 12; at < packet.payload; ++at)
    for (const int value : {0, 1, 5, 0x0f, 0x45, 0x60, 0x7f, 0x80, 0xff}) {
      std::string broken = packet.bytes;
      broken[at] = static_cast<char>(value);
      Segments segments;
      segments.begin(header(packet, 1), bytes(broken));
      unsigned count = 0;
      for (; segments.any(); ++count) ASSERT_LE(segments.next().size(), broken.size());
      EXPECT_LE(count, broken.size());
    }
}

TEST(Segments, WhatIsNotWhatItSaysIsRefused) {
  Packet packet = make_packet(pattern(100));
  const auto refused = [&](u8 gso, u16 size) {
    Segments segments;
    return !segments.begin({kNeedsChecksum, gso, 0, size, 34, 16}, bytes(packet.bytes));
  };
  EXPECT_TRUE(refused(kGsoTcp4, 0));
  EXPECT_TRUE(refused(kGsoTcp6, 10));
  EXPECT_TRUE(refused(kGsoUdp, 10));
  EXPECT_FALSE(refused(kGsoTcp4, 10));
  std::string huge(kMaxFrame + 1, 'x');
  Segments segments;
  EXPECT_FALSE(segments.begin({kNeedsChecksum, kGsoTcp4, 0, 10, 34, 16}, bytes(huge)));
}

TEST(Checksum, PiecesAddUp) {
  std::string text = pattern(1001);
  const u16 whole = checksum_fold(checksum_add(bytes(text)));
  EXPECT_EQ(checksum_fold(checksum_add(bytes(text).subspan(500), checksum_add(bytes(text).first(500)))), whole);
  std::string ones(65536, '\xff');
  EXPECT_EQ(checksum_fold(checksum_add(bytes(ones))), 0xffff);
}

}  // namespace
}  // namespace bulkhead::net
