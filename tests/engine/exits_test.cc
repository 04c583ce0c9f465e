// Ports, device memory, MSRs, halts and shutdowns: what a guest hands to the machine and gets back.
#include "tests/engine/tiny_guest.h"

namespace bulkhead::engine {
namespace {

TEST_P(Conformance, PortWritesOfEverySize) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.eax, 0x12345678);
    c.mov(c.edx, 0x1f0);
    c.out_(c.dx, c.al);
    c.out_(c.dx, c.ax);
    c.out_(c.dx, c.eax);
    c.out_(0x80, c.al);
  });
  for (const auto& [size, value] : {std::pair{1, 0x78u}, {2, 0x5678u}, {4, 0x12345678u}}) {
    const PortExit& exit = guest.expect<PortExit>();
    EXPECT_EQ(exit.port, 0x1f0);
    EXPECT_EQ(exit.size, size);
    EXPECT_TRUE(exit.write);
    EXPECT_EQ(exit.value, value);
  }
  EXPECT_EQ(guest.expect<PortExit>().port, 0x80);
}

TEST_P(Conformance, PortReadsAreCompleted) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.rax, 0x1111222233334444);
    c.mov(c.edx, 0x60);
    c.in_(c.al, c.dx);
    c.mov(c.rbx, c.rax);
    c.in_(c.ax, c.dx);
    c.mov(c.rcx, c.rax);
    c.in_(c.eax, c.dx);
    c.hlt();
  });
  for (const u8 size : {1, 2, 4}) {
    PortExit& exit = guest.expect<PortExit>();
    EXPECT_EQ(exit.size, size);
    EXPECT_FALSE(exit.write);
    exit.value = 0xaabbccddeeff9988;  // only as much as was asked for may arrive
  }
  guest.expect<HaltExit>();
  const VcpuState state = guest.vcpu().state();
  EXPECT_EQ(state.gpr[3], 0x1111222233334488u);
  EXPECT_EQ(state.gpr[1], 0x1111222233339988u);
  EXPECT_EQ(state.gpr[0], 0xeeff9988u);
}

TEST_P(Conformance, RepeatedStringOutput) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.esi, static_cast<u32>(kDataAt));
    c.mov(c.ecx, 5);
    c.mov(c.edx, 0xe9);
    c.rep();
    c.outsb();
    c.hlt();
  });
  std::memcpy(guest.host(kDataAt), "hello", 5);
  std::string text;
  for (int i = 0; i < 5; ++i) text += static_cast<char>(guest.expect<PortExit>().value);
  EXPECT_EQ(text, "hello");
  guest.expect<HaltExit>();
  EXPECT_EQ(guest.vcpu().state().gpr[1], 0u);
  EXPECT_EQ(guest.vcpu().state().gpr[6], kDataAt + 5);
}

TEST_P(Conformance, RepeatedStringInput) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kDataAt));
    c.mov(c.ecx, 3);
    c.mov(c.edx, 0x1f0);
    c.rep();
    c.db(0x66);
    c.db(0x6d);  // insw
    c.hlt();
  });
  for (const u16 value : {0x1111, 0x2222, 0x3333}) {
    PortExit& exit = guest.expect<PortExit>();
    EXPECT_FALSE(exit.write);
    EXPECT_EQ(exit.size, 2);
    exit.value = value;
  }
  guest.expect<HaltExit>();
  EXPECT_EQ(guest.load64(kDataAt), 0x333322221111u);
}

TEST_P(Conformance, DeviceMemoryWritesOfEverySize) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kMmioAt));
    c.mov(c.rax, 0x1122334455667788);
    c.mov(c.byte[c.rdi + 1], c.al);
    c.mov(c.word[c.rdi + 2], c.ax);
    c.mov(c.dword[c.rdi + 4], c.eax);
    c.mov(c.qword[c.rdi + 8], c.rax);
  });
  for (const auto& [offset, size, value] :
       {std::tuple{1, 1, u64{0x88}}, {2, 2, u64{0x7788}}, {4, 4, u64{0x55667788}}, {8, 8, u64{0x1122334455667788}}}) {
    const MmioExit& exit = guest.expect<MmioExit>();
    EXPECT_EQ(exit.address, Gpa{kMmioAt} + static_cast<u64>(offset));
    EXPECT_EQ(exit.size, size);
    EXPECT_TRUE(exit.write);
    EXPECT_EQ(exit.value, value);
  }
}

TEST_P(Conformance, DeviceMemoryReadsAreCompleted) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kMmioAt));
    c.mov(c.rbx, ~u64{0});
    c.mov(c.bl, c.byte[c.rdi]);
    c.movzx(c.ecx, c.word[c.rdi + 2]);
    c.movsxd(c.rsi, c.dword[c.rdi + 4]);
    c.mov(c.rbp, c.qword[c.rdi + 8]);
    c.hlt();
  });
  for (const u8 size : {1, 2, 4, 8}) {
    MmioExit& exit = guest.expect<MmioExit>();
    EXPECT_EQ(exit.size, size);
    EXPECT_FALSE(exit.write);
    exit.value = 0xfedcba9887654321;
  }
  guest.expect<HaltExit>();
  const VcpuState state = guest.vcpu().state();
  EXPECT_EQ(state.gpr[3], 0xffffffffffffff21u);
  EXPECT_EQ(state.gpr[1], 0x4321u);
  EXPECT_EQ(state.gpr[6], 0xffffffff87654321u);
  EXPECT_EQ(state.gpr[5], 0xfedcba9887654321u);
}

TEST_P(Conformance, ReadModifyWriteOfDeviceMemory) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kMmioAt));
    c.add(c.dword[c.rdi], 5);
    c.hlt();
  });
  MmioExit& read = guest.expect<MmioExit>();
  EXPECT_FALSE(read.write);
  read.value = 37;
  const MmioExit& write = guest.expect<MmioExit>();
  EXPECT_TRUE(write.write);
  EXPECT_EQ(write.value, 42u);
  guest.expect<HaltExit>();
}

TEST_P(Conformance, VectorAccessToDeviceMemoryComesInPieces) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.edi, static_cast<u32>(kMmioAt));
    c.movups(c.xmm0, c.ptr[c.rdi]);
    c.movups(c.ptr[c.rdi + 16], c.xmm0);
    c.hlt();
  });
  std::array<u8, 32> device{};
  for (unsigned i = 0; i < 16; ++i) device[i] = static_cast<u8>(i + 1);
  for (;;) {
    Exit& exit = guest.run();
    auto* mmio = std::get_if<MmioExit>(&exit);
    if (!mmio) {
      EXPECT_TRUE(std::holds_alternative<HaltExit>(exit)) << exit_name(exit);
      break;
    }
    const u64 at = mmio->address.value - kMmioAt;
    ASSERT_LE(at + mmio->size, device.size());
    if (mmio->write)
      std::memcpy(&device[at], &mmio->value, mmio->size);
    else
      std::memcpy(&mmio->value, &device[at], mmio->size);
  }
  EXPECT_TRUE(std::equal(device.begin(), device.begin() + 16, device.begin() + 16));
}

TEST_P(Conformance, UnknownMsrIsTheMachinesToAnswer) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.mov(c.ecx, 0x4b564dff);
    c.rdmsr();
    c.mov(c.eax, 0x1234);
    c.mov(c.edx, 0x5678);
    c.wrmsr();
    c.hlt();
  });
  MsrExit& read = guest.expect<MsrExit>();
  EXPECT_EQ(read.index, 0x4b564dffu);
  EXPECT_FALSE(read.write);
  read.value = 0xaaaabbbbccccdddd;
  read.fault = false;
  MsrExit& write = guest.expect<MsrExit>();
  EXPECT_TRUE(write.write);
  EXPECT_EQ(write.value, 0x567800001234u);
  write.fault = false;
  guest.expect<HaltExit>();
}

TEST_P(Conformance, RefusedMsrIsAGeneralProtectionFault) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([&](Code& c) {
    Xbyak::Label handler;
    c.mov(c.ecx, 0x4b564dff);
    c.rdmsr();
    c.ud2();
    c.L(handler);
    guest.set_gate(13, guest.here(c));
    c.pop(c.rax);
    emit_report(c);
  });
  guest.expect<MsrExit>().fault = true;
  EXPECT_EQ(guest.report(), 0u);
}

TEST_P(Conformance, HaltThatNothingCanWake) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) {
    c.cli();
    c.hlt();
  });
  guest.expect<HaltExit>();
}

TEST_P(Conformance, TripleFaultIsAShutdown) {
  BH_CONFORMANCE_GUEST(guest);
  guest.long_mode([](Code& c) { c.ud2(); });
  EXPECT_EQ(guest.expect<ShutdownExit>().reason, ShutdownReason::kTripleFault);
}

TEST_P(Conformance, UnknownOptionIsRefusedByName) {
  auto memory = GuestMemory::create({RamRange{Gpa{0}, kRamSize}});
  auto model = make_cpu_model("host", 1);
  ASSERT_TRUE(memory && model);
  const auto engine = GetParam().make();
  if (!engine->probe().usable) GTEST_SKIP() << engine->probe().reason;
  const auto partition =
      engine->create({.vcpus = 1, .cpu_model = *model, .options = {{"engine.no-such-thing", "1"}}}, *memory);
  ASSERT_FALSE(partition);
  EXPECT_NE(partition.error().message.find("engine.no-such-thing"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::engine
