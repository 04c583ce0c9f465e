#include <gtest/gtest.h>

#include "engine/dbt/cpu/test_guest.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kAt = 0x40000000, kGpa = 0x300000, kDevice = 0xd0000000;

class AccessTest : public testing::Test {
 protected:
  AccessTest() {
    guest.long_mode();
    guest.map(kAt, kGpa | 7);
    guest.map(kAt + kPageSize, (kGpa + 0x5000) | 7);  // neighbours in linear space only
    guest.map(kAt + 0x10000, kDevice | 7);
  }
  Cpu& cpu() { return guest.cpu(); }
  void answer(u64 value) {
    if (auto* mmio = std::get_if<MmioExit>(&cpu().exit)) mmio->value = value;
    if (auto* port = std::get_if<PortExit>(&cpu().exit)) port->value = value;
    cpu().take_answer();
  }
  TestGuest guest;
};

TEST_F(AccessTest, CrossingAccesses) {
  for (unsigned size : {2u, 4u, 8u})
    for (unsigned before = 1; before < size; ++before) {
      const u64 value = 0x8877665544332211 & mask_for_size(size);
      cpu().store(kAt + 0x1000 - before, size, value);
      EXPECT_EQ(cpu().load(kAt + 0x1000 - before, size), value);
      EXPECT_EQ(guest.peek(kGpa + 0x1000 - before, before), value & mask_for_size(before));
      EXPECT_EQ(guest.peek(kGpa + 0x5000, size - before), value >> 8 * before);
    }
}

TEST_F(AccessTest, CrossingStoreThatFaultsWritesNothing) {
  guest.poke(kGpa + 0xff8, 0x0101010101010101);
  guest.map(kAt + kPageSize, (kGpa + 0x5000) | 5);
  cpu().flush_tlb(true);
  const auto fault = guest.attempt([&] { cpu().store(kAt + 0xffc, 8, ~u64{0}); });
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->address, kAt + kPageSize);
  EXPECT_EQ(fault->error, 3u);
  EXPECT_EQ(guest.peek(kGpa + 0xff8), 0x0101010101010101u);
  u8 bytes[64] = {1};
  EXPECT_TRUE(guest.attempt([&] { cpu().store_bytes(kAt + 0xff8, bytes, 64); }));
  EXPECT_EQ(guest.peek(kGpa + 0xff8), 0x0101010101010101u);
}

TEST_F(AccessTest, Bytes) {
  std::vector<u8> out(4096), in(4096);
  for (unsigned i = 0; i < 4096; ++i) in[i] = static_cast<u8>(i * 7);
  cpu().store_bytes(kAt + 100, in.data(), 4096);
  cpu().load_bytes(kAt + 100, out.data(), 4096);
  EXPECT_EQ(in, out);
}

TEST_F(AccessTest, ProbeWriteRaisesForAnyPageAndSetsD) {
  EXPECT_FALSE(guest.attempt([&] { cpu().probe_write(kAt + 0xfff, 2); }));
  EXPECT_NE(guest.peek(guest.entry_at(kAt + kPageSize, 1)) & 0x40, 0u);
  EXPECT_EQ(guest.attempt([&] { cpu().probe_write(kAt + 0xfff, 0x1002); })->address, kAt + 2 * kPageSize);
}

TEST_F(AccessTest, AtomicHost) {
  EXPECT_EQ(cpu().atomic_host(kAt + 0xffc, 8), nullptr);
  EXPECT_EQ(cpu().atomic_host(kAt + 0x10000, 8), nullptr);
  auto* host = static_cast<u64*>(cpu().atomic_host(kAt + 8, 8));
  ASSERT_NE(host, nullptr);
  *host = 5;
  EXPECT_EQ(guest.peek(kGpa + 8), 5u);
}

// ---- devices

TEST_F(AccessTest, MmioLoadIsAnExitAndThenTheAnswer) {
  EXPECT_EQ(guest.attempt([&] { cpu().load(kAt + 0x10010, 4); })->vector, 0xff);
  const auto& exit = std::get<MmioExit>(cpu().exit);
  EXPECT_EQ(exit.address.value, kDevice + 0x10);
  EXPECT_EQ(exit.size, 4);
  EXPECT_FALSE(exit.write);
  answer(0xffffffff12345678);
  EXPECT_EQ(cpu().load(kAt + 0x10010, 4), 0x12345678u);
  cpu().instruction_done();
  EXPECT_EQ(guest.attempt([&] { cpu().load(kAt + 0x10010, 4); })->vector, 0xff);
}

TEST_F(AccessTest, WideMmioComesInPieces) {
  u64 out[2] = {};
  const auto read = [&] { cpu().load_bytes(kAt + 0x10000, out, 16); };
  EXPECT_TRUE(guest.attempt(read));
  answer(1);
  EXPECT_TRUE(guest.attempt(read));
  EXPECT_EQ(std::get<MmioExit>(cpu().exit).address.value, kDevice + 8);
  answer(2);
  EXPECT_FALSE(guest.attempt(read));
  EXPECT_EQ(out[0], 1u);
  EXPECT_EQ(out[1], 2u);
}

TEST_F(AccessTest, AFaultForgetsTheAnswers) {
  EXPECT_TRUE(guest.attempt([&] { cpu().load(kAt + 0x10010, 4); }));
  answer(1);
  EXPECT_EQ(guest
                .attempt([&] {
                  cpu().load(kAt + 0x10010, 4);
                  cpu().load(kAt + 0x100000, 4);
                })
                ->vector,
            kPageFault);
  EXPECT_EQ(cpu().io_log.done, 0u);
}

TEST_F(AccessTest, OneInstructionCannotAskForever) {
  std::vector<u8> buffer(4096);
  unsigned exits = 0;
  while (guest.attempt([&] { cpu().load_bytes(kAt + 0x10000, buffer.data(), 4096); })) {
    ASSERT_LT(++exits, 1000u);
    answer(0);
  }
  EXPECT_EQ(exits, Cpu::IoLog::kCapacity);
  EXPECT_EQ(buffer[4095], 0xff);
}

TEST_F(AccessTest, LapicPageIsAnsweredHere) {
  guest.map(kAt, 0xfee00000 | 7);
  cpu().flush_tlb(true);
  EXPECT_EQ(cpu().load(kAt + 0x20, 4), 0u);  // ID
  cpu().store(kAt + 0x80, 4, 0x20);          // TPR
  EXPECT_EQ(cpu().load(kAt + 0x80, 4), 0x20u);
  EXPECT_EQ(cpu().read_cr(8), 2u);
  EXPECT_EQ(cpu().tlb_fill(kAt, 4, Access::kRead), nullptr);
}

TEST_F(AccessTest, SystemStructuresOutsideRamNeedNoExit) {
  EXPECT_EQ(cpu().load_system(kAt + 0x10000, 8), ~u64{0});
  cpu().store_system(kAt + 0x10000, 8, 0);
}

// ---- code

TEST_F(AccessTest, FetchStopsBeforeAPageThatFaults) {
  u8 code[15];
  EXPECT_EQ(cpu().fetch(kAt + 0xff0, code), 15u);
  EXPECT_EQ(cpu().fetch(kAt + 0xff8, code), 15u);
  guest.map(kAt + kPageSize, 0);
  cpu().flush_tlb(true);
  EXPECT_EQ(cpu().fetch(kAt + 0xff8, code), 8u);
  const auto fault = guest.attempt([&] { cpu().fetch_fault(kAt + 0x1000); });
  EXPECT_EQ(fault->vector, kPageFault);
  EXPECT_EQ(fault->error, 0x10u);
  EXPECT_EQ(fault->address, kAt + 0x1000);
}

TEST_F(AccessTest, FetchFromWhereverNothingIs) {
  u8 code[15] = {};
  EXPECT_EQ(cpu().fetch(kAt + 0x10000, code), 15u);
  EXPECT_EQ(code[0], 0xff);
  EXPECT_EQ(guest.attempt([&] { cpu().fetch(0x1234500000000000, code); })->vector, kGp);
  EXPECT_EQ(guest.attempt([&] { cpu().fetch(0x50000000, code); })->error, 0x10u);
}

TEST_F(AccessTest, FetchHonoursTheCodeLimit) {
  TestGuest legacy;
  legacy.protected_mode();
  legacy.s().seg[kCs].limit = 0x7fff;
  u8 code[15];
  EXPECT_EQ(legacy.cpu().fetch(0x7ffb, code), 5u);
  EXPECT_EQ(legacy.attempt([&] { legacy.cpu().fetch(0x8000, code); })->vector, kGp);
  EXPECT_EQ(legacy.attempt([&] { legacy.cpu().fetch_fault(0x8000); })->vector, kGp);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
