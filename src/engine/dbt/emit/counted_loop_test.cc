#include "engine/dbt/emit/counted_loop.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace bulkhead::engine::dbt {
namespace {

using Bytes = std::vector<u8>;
using Registers = std::array<u64, 16>;
constexpr u64 kPage = 0xffff'8000'0012'3000;
enum : unsigned { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9 };

std::optional<LoopSkip> skip(const Bytes& code, const Registers& gpr) {
  Bytes page(4096, 0xcc);
  std::ranges::copy(code, page.begin() + 0x100);
  return skip_counted_loop(page, kPage, kPage + 0x100, gpr);
}

// cmp rdi, r9 / jae 1f / mov rax, [rax] / 1: xor r8d, r8d / jmp 2f / 2: cmp esi, r8d / jne +0x40 / inc edx / inc rdi
// / cmp edx, ecx / jne head
const Bytes kFrames = {0x4c, 0x39, 0xcf, 0x73, 0x03, 0x48, 0x8b, 0x00, 0x45, 0x31, 0xc0, 0xeb, 0x00, 0x44,
                       0x39, 0xc6, 0x75, 0x40, 0xff, 0xc2, 0x48, 0xff, 0xc7, 0x39, 0xca, 0x75, 0xe5};

TEST(CountedLoop, LeavesTheLastRoundToBeExecuted) {
  Registers gpr{};
  gpr[kRdi] = 0x20001;
  gpr[kR9] = 0x20000;
  gpr[kRdx] = 1;
  gpr[kRcx] = 0x40000;
  const auto result = skip(kFrames, gpr);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->rounds, 0x40000u - 3);  // one comes back to the head, and one leaves
  EXPECT_EQ(result->gpr[kRdx], 0x40000u - 2);
  EXPECT_EQ(result->gpr[kRdi], 0x20001u + 0x40000 - 3);
  EXPECT_EQ(result->gpr[kRcx], 0x40000u);
}

TEST(CountedLoop, FollowsTheWayThatTheRegistersTake) {
  Registers gpr{};
  gpr[kRdi] = 1;
  gpr[kR9] = 0x20000;  // the other way reads memory
  gpr[kRdx] = 1;
  gpr[kRcx] = 0x40000;
  EXPECT_FALSE(skip(kFrames, gpr));
}

TEST(CountedLoop, ABranchThatLeavesIsNotFollowed) {
  Registers gpr{};
  gpr[kRdi] = 0x20001;
  gpr[kR9] = 0x20000;
  gpr[kRsi] = 1;  // esi != r8d: jumps away
  gpr[kRcx] = 0x40000;
  EXPECT_FALSE(skip(kFrames, gpr));
}

TEST(CountedLoop, LoopsThatWaitAreLeftAlone) {
  Registers gpr{};
  gpr[kRax] = 1'000'000;
  EXPECT_FALSE(skip({0x48, 0xff, 0xc8, 0x75, 0xfb}, gpr));              // dec rax / jnz
  EXPECT_FALSE(skip({0x48, 0xff, 0xc0, 0xeb, 0xfb}, gpr));              // inc rax / jmp
  EXPECT_FALSE(skip({0xf3, 0x90, 0x48, 0xff, 0xc8, 0x75, 0xf9}, gpr));  // with pause
  EXPECT_FALSE(skip({0x0f, 0x31, 0x39, 0xc8, 0x72, 0xfa}, gpr));        // rdtsc / cmp eax, ecx / jb
  EXPECT_FALSE(skip({0xeb, 0xfe}, gpr));
}

TEST(CountedLoop, MemoryEndsIt) {
  Registers gpr{};
  gpr[kRcx] = 1000;
  // mov [rax], ecx / inc rax / dec rcx / jnz
  EXPECT_FALSE(skip({0x89, 0x08, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc9, 0x75, 0xf6}, gpr));
}

TEST(CountedLoop, FewRoundsAreNotWorthIt) {
  Registers gpr{};
  gpr[kRcx] = 20;
  const Bytes code = {0x48, 0xff, 0xc0, 0x48, 0xff, 0xc9, 0x75, 0xf8};  // inc rax / dec rcx / jnz
  EXPECT_FALSE(skip(code, gpr));
  gpr[kRcx] = 1000;
  const auto result = skip(code, gpr);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->rounds, 998u);
  EXPECT_EQ(result->gpr[kRcx], 2u);
  EXPECT_EQ(result->gpr[kRax], 998u);
}

// adc reads what the round before left in CF.
TEST(CountedLoop, FlagsFromTheRoundBeforeEndIt) {
  Registers gpr{};
  gpr[kRcx] = 1000;
  EXPECT_FALSE(skip({0x48, 0x83, 0xd0, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xf7}, gpr));  // adc rax, 0 / dec rcx / jnz
  // jc out / add rax, 1 / dec rcx / jnz: the carry is not known at the head
  EXPECT_FALSE(skip({0x72, 0x10, 0x48, 0x83, 0xc0, 0x01, 0x48, 0xff, 0xc9, 0x75, 0xf5}, gpr));
  // inc rax / jz out / add rbx, 1 / dec rcx / jnz: ADD sets a carry only behind the first branch
  EXPECT_FALSE(skip({0x48, 0xff, 0xc0, 0x74, 0x20, 0x48, 0x83, 0xc3, 0x01, 0x48, 0xff, 0xc9, 0x75, 0xf2}, gpr));
}

TEST(CountedLoop, RegistersThatGrowByRegistersEndIt) {
  Registers gpr{};
  gpr[kRcx] = 1000;
  gpr[kRdx] = 3;
  EXPECT_FALSE(skip({0x48, 0x01, 0xd0, 0x48, 0xff, 0xc9, 0x75, 0xf8}, gpr));  // add rax, rdx / dec rcx / jnz
  EXPECT_FALSE(skip({0x48, 0x89, 0xca, 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc9, 0x75, 0xf5}, gpr));  // mov rdx, rcx / ...
}

TEST(CountedLoop, CodeBeyondThePageEndsIt) {
  Bytes page(4096, 0x90);
  Registers gpr{};
  EXPECT_FALSE(skip_counted_loop(page, kPage, kPage + 4090, gpr));
  EXPECT_FALSE(skip_counted_loop(page, kPage, kPage + 4096, gpr));
  EXPECT_FALSE(skip_counted_loop(page, kPage, 0, gpr));
}

// ---- against executing every round

struct Step {
  unsigned width, reg;
  i64 amount;
};
struct Comparison {
  unsigned width, left, right;
  u8 condition;  // of the branch out of the loop
};

class RandomLoop {
 public:
  explicit RandomLoop(u64 seed) : random_{seed} {
    for (u64& value : start) value = pick_value();
    const unsigned steps = 1 + pick(3), comparisons = 1 + pick(2);
    for (unsigned i = 0; i < comparisons; ++i) compare();
    for (unsigned i = 0; i < steps; ++i) step();
    code.push_back(0xeb);
    code.push_back(static_cast<u8>(-static_cast<int>(code.size() + 1)));
  }

  // One round; false: it leaves.
  bool round(Registers& gpr) const {
    for (const Comparison& c : comparisons_)
      if (leaves(c, gpr)) return false;
    for (const Step& s : steps_) {
      const u64 sum = gpr[s.reg] + static_cast<u64>(s.amount);
      gpr[s.reg] = s.width == 32 ? static_cast<u32>(sum) : sum;
    }
    return true;
  }

  Bytes code;
  Registers start{};

 private:
  unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }
  u64 pick_value() {
    static constexpr u64 kValues[] = {0,
                                      1,
                                      2000,
                                      0x7fff'ff00,
                                      0xffff'ff00,
                                      0x8000'0010,
                                      0xffff'ffff'ffff'fc00,
                                      0x7fff'ffff'ffff'ff80,
                                      0x8000'0000'0000'0100};
    return pick(3) == 0 ? pick(4000) : kValues[pick(std::size(kValues))] + pick(64);
  }
  void rex(bool wide) {
    if (wide) code.push_back(0x48);
  }
  void step() {
    const Step s{pick(2) == 0 ? 32u : 64u, pick(4), static_cast<i64>(pick(15)) - 7};
    rex(s.width == 64);
    code.insert(code.end(), {0x83, static_cast<u8>(0xc0 + s.reg), static_cast<u8>(s.amount)});
    steps_.push_back(s);
  }
  void compare() {
    static constexpr u8 kConditions[] = {2, 3, 4, 5, 6, 7, 12, 13, 14, 15};
    const Comparison c{pick(2) == 0 ? 32u : 64u, pick(6) == 4 ? kRbp : pick(4), pick(2) == 0 ? unsigned{kRsi} : kRdi,
                       kConditions[pick(std::size(kConditions))]};
    rex(c.width == 64);
    code.insert(code.end(),
                {0x39, static_cast<u8>(0xc0 | c.right << 3 | c.left), static_cast<u8>(0x70 | c.condition), 0x70});
    comparisons_.push_back(c);
  }
  static bool leaves(const Comparison& c, const Registers& gpr) {
    const u64 a = c.width == 32 ? static_cast<u32>(gpr[c.left]) : gpr[c.left];
    const u64 b = c.width == 32 ? static_cast<u32>(gpr[c.right]) : gpr[c.right];
    const i64 sa = c.width == 32 ? static_cast<i32>(a) : static_cast<i64>(a);
    const i64 sb = c.width == 32 ? static_cast<i32>(b) : static_cast<i64>(b);
    const bool outcome[] = {a < b, a == b, a <= b, false, false, sa < sb, sa <= sb};
    return outcome[c.condition / 2 - 1] != ((c.condition & 1) != 0);
  }

  std::mt19937_64 random_;
  std::vector<Step> steps_;
  std::vector<Comparison> comparisons_;
};

TEST(CountedLoop, ComesToWhereExecutingEveryRoundComes) {
  unsigned skipped = 0;
  for (u64 seed = 0; seed < 20'000; ++seed) {
    const RandomLoop loop{seed};
    const auto result = skip(loop.code, loop.start);
    if (!result) continue;
    const u64 rounds = result->rounds;
    if (rounds > 100'000) continue;
    ++skipped;
    Registers gpr = loop.start;
    for (u64 i = 0; i < rounds; ++i) ASSERT_TRUE(loop.round(gpr)) << "seed " << seed << " leaves in round " << i;
    ASSERT_EQ(gpr, result->gpr) << "seed " << seed;
    ASSERT_TRUE(loop.round(gpr)) << "seed " << seed << ": the round that is left does not come to the head";
  }
  EXPECT_GT(skipped, 300u);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
