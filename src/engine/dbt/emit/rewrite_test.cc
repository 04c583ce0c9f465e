#include "engine/dbt/emit/rewrite.h"

#include <gtest/gtest.h>

#include <vector>

namespace bulkhead::engine::dbt {
namespace {

std::vector<u8> rewritten(std::vector<u8> guest, const Rewrite& how) {
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, guest, insn), DecodeStatus::kOk);
  HostCode code;
  if (!rewrite(insn, how, code)) return {};
  return {code.bytes.begin(), code.bytes.begin() + code.length};
}

using Bytes = std::vector<u8>;

TEST(Rewrite, MemoryOperandBecomesOneRegister) {
  // add [rax+rcx*4+0x10], r8 -> add [r8], r9
  EXPECT_EQ(rewritten({0x4c, 0x01, 0x44, 0x88, 0x10}, {.modrm_reg = 9, .memory_base = 8}), (Bytes{0x4d, 0x01, 0x08}));
}

TEST(Rewrite, ABaseMayHaveADisplacement) {
  // mov rax, [rsp+0x10] -> mov rax, [r8+0x18]
  EXPECT_EQ(rewritten({0x48, 0x8b, 0x44, 0x24, 0x10}, {.memory_base = 8, .memory_disp = 0x18}),
            (Bytes{0x49, 0x8b, 0x40, 0x18}));
  // vmovups zmm1, [rsp+0x40] -> vmovups zmm1, [r8+0x20]: not as one eighth of a short displacement
  EXPECT_EQ(rewritten({0x62, 0xf1, 0x7c, 0x48, 0x10, 0x4c, 0x24, 0x01}, {.memory_base = 8, .memory_disp = 0x20}),
            (Bytes{0x62, 0xd1, 0x7c, 0x48, 0x10, 0x88, 0x20, 0, 0, 0}));
}

TEST(Rewrite, ARegisterMayBecomeMemory) {
  // add r9, r14 -> add [rsp+0x48], r14
  EXPECT_EQ(rewritten({0x4d, 0x01, 0xf1}, {.rm_slot = 0x48}), (Bytes{0x4c, 0x01, 0x74, 0x24, 0x48}));
  // imul r10, r8, 0x7 -> imul r9, [rsp+0x40], 0x7
  EXPECT_EQ(rewritten({0x4d, 0x6b, 0xd0, 0x07}, {.modrm_reg = 9, .rm_slot = 0x40}),
            (Bytes{0x4c, 0x6b, 0x4c, 0x24, 0x40, 0x07}));
}

TEST(Rewrite, RexAppearsWhereItIsNeeded) {
  // mov eax, [rbx] -> mov eax, [r8]
  EXPECT_EQ(rewritten({0x8b, 0x03}, {.modrm_reg = 0, .memory_base = 8}), (Bytes{0x41, 0x8b, 0x00}));
}

TEST(Rewrite, SegmentAndAddressSizePrefixesGoLockStays) {
  // lock add fs:[eax], ebx
  EXPECT_EQ(rewritten({0xf0, 0x64, 0x67, 0x01, 0x18}, {.modrm_reg = 3, .memory_base = 8}),
            (Bytes{0xf0, 0x41, 0x01, 0x18}));
}

TEST(Rewrite, ImmediateStaysBehindADroppedDisplacement) {
  // cmp dword [rip+0x11223344], 0x55
  EXPECT_EQ(rewritten({0x83, 0x3d, 0x44, 0x33, 0x22, 0x11, 0x55}, {.memory_base = 8}), (Bytes{0x41, 0x83, 0x38, 0x55}));
}

TEST(Rewrite, HighByteRegisterRefusesRex) {
  EXPECT_TRUE(rewritten({0x8a, 0x23}, {.memory_base = 8}).empty());             // mov ah, [rbx]
  EXPECT_EQ(rewritten({0x8a, 0x23}, {.memory_base = 7}), (Bytes{0x8a, 0x27}));  // through RDI it works
}

TEST(Rewrite, OpcodeRegister) {
  EXPECT_EQ(rewritten({0x49, 0x0f, 0xc8}, {.opcode_reg = 10}), (Bytes{0x49, 0x0f, 0xca}));  // bswap r8 -> bswap r10
}

TEST(Rewrite, TwoByteVexGrows) {
  // vmovups ymm1, [rax] -> [r8]
  EXPECT_EQ(rewritten({0xc5, 0xfc, 0x10, 0x08}, {.memory_base = 8}), (Bytes{0xc4, 0xc1, 0x7c, 0x10, 0x08}));
}

TEST(Rewrite, VexGeneralRegistersInEveryField) {
  // andn r8d, r9d, [rax] -> andn r9d, r10d, [r8]
  EXPECT_EQ(rewritten({0xc4, 0x62, 0x30, 0xf2, 0x00}, {.modrm_reg = 9, .vvvv = 10, .memory_base = 8}),
            (Bytes{0xc4, 0x42, 0x28, 0xf2, 0x08}));
}

TEST(Rewrite, RegisterNamedInTheLastByteStays) {
  // vblendvps xmm1, xmm2, [rax+4], xmm3
  EXPECT_EQ(rewritten({0xc4, 0xe3, 0x69, 0x4a, 0x48, 0x04, 0x30}, {.memory_base = 8}),
            (Bytes{0xc4, 0xc3, 0x69, 0x4a, 0x08, 0x30}));
}

TEST(Rewrite, EvexKeepsMaskAndLength) {
  // vmovups zmm17{k1}{z}, [rax+64]
  EXPECT_EQ(rewritten({0x62, 0xe1, 0x7c, 0xc9, 0x10, 0x48, 0x01}, {.memory_base = 8}),
            (Bytes{0x62, 0xc1, 0x7c, 0xc9, 0x10, 0x08}));
}

}  // namespace
}  // namespace bulkhead::engine::dbt
