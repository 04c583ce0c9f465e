#include "engine/dbt/emit/window.h"

#include <gtest/gtest.h>

#include <vector>

namespace bulkhead::engine::dbt {
namespace {

StackEffect effect_of(std::vector<u8> bytes) {
  Insn insn;
  EXPECT_EQ(decode(CodeSize::k64, bytes, insn), DecodeStatus::kOk);
  return stack_effect(insn, classify(insn));
}

TEST(StackEffect, PushesAndPops) {
  const StackEffect push = effect_of({0x50});  // push rax
  EXPECT_TRUE(push.accesses && push.writes && !push.lost);
  EXPECT_EQ(push.offset, -8);
  EXPECT_EQ(push.moves, -8);
  const StackEffect pop = effect_of({0x58});  // pop rax
  EXPECT_TRUE(pop.accesses && !pop.writes && !pop.lost);
  EXPECT_EQ(pop.offset, 0);
  EXPECT_EQ(pop.moves, 8);
  EXPECT_TRUE(effect_of({0x5c}).lost);  // pop rsp
}

TEST(StackEffect, OperandsOnTheStack) {
  const StackEffect store = effect_of({0x48, 0x89, 0x44, 0x24, 0x10});  // mov [rsp+0x10], rax
  EXPECT_TRUE(store.accesses && store.writes);
  EXPECT_EQ(store.offset, 16);
  EXPECT_EQ(store.size, 8u);
  EXPECT_FALSE(effect_of({0x8b, 0x04, 0x24}).writes);                   // mov eax, [rsp]
  EXPECT_FALSE(effect_of({0x8b, 0x04, 0x8c}).accesses);                 // mov eax, [rsp+rcx*4]
  EXPECT_FALSE(effect_of({0x65, 0x8b, 0x04, 0x24}).accesses);           // mov eax, gs:[rsp]
  EXPECT_FALSE(effect_of({0x67, 0x8b, 0x04, 0x24}).accesses);           // mov eax, [esp]
  EXPECT_FALSE(effect_of({0x8b, 0x84, 0x24, 0, 0, 0, 0x40}).accesses);  // mov eax, [rsp+0x40000000]
}

TEST(StackEffect, WhereRspGoes) {
  EXPECT_EQ(effect_of({0x48, 0x83, 0xec, 0x28}).moves, -0x28);     // sub rsp, 0x28
  EXPECT_EQ(effect_of({0x48, 0x83, 0xc4, 0x28}).moves, 0x28);      // add rsp, 0x28
  EXPECT_EQ(effect_of({0x48, 0x8d, 0x64, 0x24, 0xf8}).moves, -8);  // lea rsp, [rsp-8]
  EXPECT_TRUE(effect_of({0x48, 0x83, 0xe4, 0xf0}).lost);           // and rsp, -16
  EXPECT_TRUE(effect_of({0x83, 0xec, 0x28}).lost);                 // sub esp, 0x28
  EXPECT_TRUE(effect_of({0x48, 0x01, 0xc4}).lost);                 // add rsp, rax
  EXPECT_TRUE(effect_of({0x48, 0x89, 0xc4}).lost);                 // mov rsp, rax
  EXPECT_TRUE(effect_of({0x48, 0x94}).lost);                       // xchg rsp, rax
  EXPECT_TRUE(effect_of({0x48, 0x8d, 0x65, 0xf8}).lost);           // lea rsp, [rbp-8]
  EXPECT_TRUE(effect_of({0xc9}).lost);                             // leave
  EXPECT_TRUE(effect_of({0x0f, 0xa2}).lost);                       // cpuid: the interpreter's
  EXPECT_TRUE(effect_of({0x48, 0x81, 0xec, 0, 0, 0, 0x40}).lost);  // sub rsp, 0x40000000
  const StackEffect other = effect_of({0x48, 0x89, 0xc8});         // mov rax, rcx
  EXPECT_TRUE(!other.accesses && !other.lost && other.moves == 0);
}

TEST(StackWindow, GrowsBothWaysUpToItsLimit) {
  StackWindow window;
  EXPECT_TRUE(window.take(0, 8, false));
  EXPECT_TRUE(window.take(-8, 8, true));
  EXPECT_TRUE(window.take(static_cast<i32>(kMaxWindow) - 16, 8, false));
  EXPECT_EQ(window.low, -8);
  EXPECT_EQ(window.high, static_cast<i32>(kMaxWindow) - 8);
  EXPECT_TRUE(window.writes);
  EXPECT_FALSE(window.take(-9, 1, true));
  EXPECT_FALSE(window.take(static_cast<i32>(kMaxWindow) - 8, 1, true));
  EXPECT_EQ(window.accesses, 3u);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
