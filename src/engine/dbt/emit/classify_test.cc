#include "engine/dbt/emit/classify.h"

#include <gtest/gtest.h>

#include <vector>

#include "engine/dbt/cpu/flags.h"

namespace bulkhead::engine::dbt {
namespace {

Insn decoded(std::vector<u8> bytes) {
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kOk);
  return insn;
}
InsnKind kind_of(std::vector<u8> bytes) { return classify(decoded(std::move(bytes))); }
FlagEffect flags_of(std::vector<u8> bytes) {
  const Insn insn = decoded(std::move(bytes));
  return flag_effect(insn, classify(insn));
}

TEST(Classify, WhatRunsOnTheHost) {
  EXPECT_EQ(kind_of({0x48, 0x01, 0xd8}), InsnKind::kNative);                    // add rax, rbx
  EXPECT_EQ(kind_of({0xf0, 0x0f, 0xb1, 0x0f}), InsnKind::kNative);              // lock cmpxchg [rdi], ecx
  EXPECT_EQ(kind_of({0x62, 0xf1, 0x7c, 0x48, 0x10, 0x00}), InsnKind::kNative);  // vmovups zmm0, [rax]
  EXPECT_EQ(kind_of({0xd9, 0xfe}), InsnKind::kNative);                          // fsin
}

TEST(Classify, WhatTheHostMustNotSee) {
  EXPECT_EQ(kind_of({0x0f, 0x20, 0xd8}), InsnKind::kInterpret);                    // mov rax, cr3
  EXPECT_EQ(kind_of({0x0f, 0x22, 0xd8}), InsnKind::kInterpretEnd);                 // mov cr3, rax
  EXPECT_EQ(kind_of({0x8e, 0xd8}), InsnKind::kInterpret);                          // mov ds, eax
  EXPECT_EQ(kind_of({0x0f, 0x05}), InsnKind::kInterpretEnd);                       // syscall
  EXPECT_EQ(kind_of({0x0f, 0xae, 0x00}), InsnKind::kInterpret);                    // fxsave [rax]
  EXPECT_EQ(kind_of({0xd9, 0x30}), InsnKind::kInterpret);                          // fnstenv [rax]
  EXPECT_EQ(kind_of({0xc4, 0xe2, 0x69, 0x92, 0x04, 0x08}), InsnKind::kInterpret);  // vgatherdps
  EXPECT_EQ(kind_of({0x66, 0x0f, 0xf7, 0xc1}), InsnKind::kInterpret);  // maskmovdqu: memory that no operand names
  EXPECT_EQ(kind_of({0xcc}), InsnKind::kInterpretEnd);
  EXPECT_EQ(kind_of({0xfb}), InsnKind::kSti);
  EXPECT_EQ(kind_of({0x0f, 0x0b}), InsnKind::kInterpretEnd);
}

TEST(Classify, BranchesAndStack) {
  EXPECT_EQ(kind_of({0xe8, 0, 0, 0, 0}), InsnKind::kCall);
  EXPECT_EQ(kind_of({0xff, 0xd0}), InsnKind::kCallIndirect);
  EXPECT_EQ(kind_of({0xff, 0x18}), InsnKind::kInterpretEnd);  // far call
  EXPECT_EQ(kind_of({0xc3}), InsnKind::kRet);
  EXPECT_EQ(kind_of({0xcb}), InsnKind::kInterpretEnd);     // far return
  EXPECT_EQ(kind_of({0x66, 0x50}), InsnKind::kInterpret);  // push ax
  EXPECT_EQ(kind_of({0x9c}), InsnKind::kPushFlags);        // pushfq
  EXPECT_EQ(kind_of({0x66, 0x9c}), InsnKind::kInterpret);  // pushf
  EXPECT_EQ(flags_of({0x9c}).reads, u32{kArithmeticFlags});
  EXPECT_EQ(flags_of({0x9c}).writes, 0u);
  EXPECT_EQ(kind_of({0x0f, 0xa0}), InsnKind::kInterpret);        // push fs
  EXPECT_EQ(kind_of({0x0f, 0xab, 0x07}), InsnKind::kBitMemory);  // bts [rdi], eax
}

TEST(Classify, SegmentsAreReadWhereTheWholeRegisterIsWritten) {
  EXPECT_EQ(kind_of({0x8c, 0xd0}), InsnKind::kMovFromSegment);        // mov eax, ss
  EXPECT_EQ(kind_of({0x48, 0x8c, 0xd0}), InsnKind::kMovFromSegment);  // mov rax, ss
  EXPECT_EQ(kind_of({0x66, 0x8c, 0xd0}), InsnKind::kInterpret);       // mov ax, ss
  EXPECT_EQ(kind_of({0x8c, 0x10}), InsnKind::kInterpret);             // mov [rax], ss
}

TEST(Classify, ShiftByClMayLeaveFlags) {
  const FlagEffect by_cl = flags_of({0xd3, 0xe0});
  EXPECT_EQ(by_cl.kills, 0u);
  EXPECT_NE(by_cl.reads & kCf, 0u);
  EXPECT_NE(flags_of({0xc1, 0xe0, 0x03}).kills & kCf, 0u);
  EXPECT_EQ(flags_of({0xc1, 0xe0, 0x20}).kills, 0u);                           // by 32 is by 0
  EXPECT_EQ(flags_of({0x48, 0xc1, 0xe0, 0x20}).kills, u32{kArithmeticFlags});  // but not of 64 bits
  EXPECT_EQ(flags_of({0x48, 0xc1, 0xe0, 0x40}).kills, 0u);
}

TEST(Classify, IncKeepsCarry) {
  const FlagEffect inc = flags_of({0xff, 0xc0});
  EXPECT_EQ(inc.kills & kCf, 0u);
  EXPECT_NE(inc.kills & kZf, 0u);
}

TEST(Classify, TheInterpreterNeedsAllFlags) { EXPECT_EQ(flags_of({0x9c}).reads, kArithmeticFlags); }

}  // namespace
}  // namespace bulkhead::engine::dbt
