#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <vector>

#include "engine/dbt/cpu/flags.h"
#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {
namespace {

Insn decode64(std::vector<u8> bytes) {
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kOk);
  EXPECT_EQ(insn.length, bytes.size());
  return insn;
}

TEST(Decode, AddMemoryRegister) {
  const Insn insn = decode64({0x4c, 0x01, 0x44, 0x88, 0x10});  // add [rax+rcx*4+0x10], r8
  EXPECT_EQ(insn.mnemonic, ZYDIS_MNEMONIC_ADD);
  EXPECT_EQ(insn.operand_size, 8);
  ASSERT_EQ(insn.operand_count, 2);
  EXPECT_EQ(insn.operands[0].kind, OperandKind::kMemory);
  EXPECT_TRUE(insn.operands[0].read && insn.operands[0].written);
  EXPECT_EQ(insn.operands[1].reg, 8);
  EXPECT_EQ(insn.mem.base, 0);
  EXPECT_EQ(insn.mem.index, 1);
  EXPECT_EQ(insn.mem.scale, 4);
  EXPECT_EQ(insn.mem.disp, 0x10);
  EXPECT_EQ(insn.mem.segment, 3);
  EXPECT_EQ(insn.flags_written & kArithmeticFlags, kArithmeticFlags);
  EXPECT_EQ(insn.rex, 0x4c);
}

TEST(Decode, RipRelativeAndSegment) {
  const Insn insn = decode64({0x65, 0x48, 0x8b, 0x05, 0x78, 0x56, 0x34, 0x12});  // mov rax, gs:[rip+0x12345678]
  EXPECT_EQ(insn.mem.base, kRipBase);
  EXPECT_EQ(insn.mem.disp, 0x12345678);
  EXPECT_EQ(insn.mem.segment, 5);
  EXPECT_EQ(insn.prefix_end, 2);
}

TEST(Decode, HighByteRegister) {
  const Insn insn = decode64({0x0f, 0xb6, 0xcc});  // movzx ecx, ah
  EXPECT_EQ(insn.operands[1].reg_class, RegisterClass::kGpr8High);
  EXPECT_EQ(insn.operands[1].reg, 0);
}

TEST(Decode, NewByteRegister) {
  const Insn insn = decode64({0x40, 0x88, 0xf0});  // mov al, sil
  EXPECT_EQ(insn.operands[1].reg_class, RegisterClass::kGpr8);
  EXPECT_EQ(insn.operands[1].reg, 6);
}

TEST(Decode, RepMovsKeepsItsSegment) {
  const Insn insn = decode64({0xf3, 0x64, 0x48, 0xa5});  // rep movsq with FS
  EXPECT_EQ(insn.mnemonic, ZYDIS_MNEMONIC_MOVSQ);
  EXPECT_EQ(insn.rep, RepKind::kRep);
  EXPECT_EQ(insn.mem.segment, 4);
}

TEST(Decode, RelativeBranchIsSignExtended) {
  const Insn insn = decode64({0xeb, 0xfe});
  EXPECT_EQ(insn.operands[0].kind, OperandKind::kRelative);
  EXPECT_EQ(insn.imm, ~u64{0} - 1);
}

TEST(Decode, EnterHasTwoImmediates) {
  const Insn insn = decode64({0xc8, 0x34, 0x12, 0x05});
  EXPECT_EQ(insn.imm, 0x1234u);
  EXPECT_EQ(insn.imm2, 5);
}

TEST(Decode, CompressedDisplacementIsScaled) {
  const Insn insn = decode64({0x62, 0xf1, 0x7c, 0x48, 0x10, 0x40, 0x01});  // vmovups zmm0, [rax+64]
  EXPECT_EQ(insn.mem.disp, 64);
  EXPECT_EQ(insn.operands[0].reg_class, RegisterClass::kZmm);
}

TEST(Decode, FarPointerIn32Bit) {
  const std::vector<u8> bytes{0xea, 0x78, 0x56, 0x34, 0x12, 0x08, 0x00};
  Insn insn;
  ASSERT_EQ(decode(CodeSize::k32, bytes, insn), DecodeStatus::kOk);
  EXPECT_EQ(insn.operands[0].kind, OperandKind::kFarPointer);
  EXPECT_EQ(insn.imm, 0x12345678u);
  EXPECT_EQ(insn.imm2, 8);
}

TEST(Decode, PauseWithRexBIsAnExchange) {
  const Insn insn = decode64({0xf3, 0x49, 0x90});
  EXPECT_EQ(insn.mnemonic, ZYDIS_MNEMONIC_XCHG);
  EXPECT_EQ(insn.operands[0].reg, 8);
  EXPECT_EQ(insn.operands[0].size, 8);
  EXPECT_EQ(insn.operands[1].reg, 0);
  EXPECT_EQ(decode64({0xf3, 0x90}).mnemonic, ZYDIS_MNEMONIC_PAUSE);
}

TEST(Decode, TruncatedWantsMore) {
  const std::vector<u8> bytes{0x48, 0x8b};
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kNeedMoreBytes);
}

TEST(Decode, SixteenBytesIsTooLong) {
  const std::vector<u8> bytes(15, 0x66);
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kTooLong);
}

TEST(Decode, LockOnMovIsInvalid) {
  const std::vector<u8> bytes{0xf0, 0x89, 0x00};
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kInvalid);
}

TEST(Decode, InvalidIn64Bit) {
  const std::vector<u8> bytes{0x06, 0x90};
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kInvalid);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
