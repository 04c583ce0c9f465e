// The same bytes on the interpreter and on the bare host, with random registers, flags and memory.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <random>
#include <string>

#include "support/cpu_fixture.h"

namespace bulkhead::engine::dbt {
namespace {

struct HostState {
  std::array<u64, 16> gpr;
  u64 rflags;
};

// Runs a few bytes of user code natively: registers but RSP from and to a HostState, flags too.
class HostRunner {
 public:
  HostRunner() {
    page_ =
        static_cast<u8*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    shared_ = static_cast<u8*>(mmap(reinterpret_cast<void*>(CpuFixture::kShared), 8192, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
  }
  ~HostRunner() {
    munmap(page_, 4096);
    munmap(shared_, 8192);
  }
  bool ok() const { return page_ != MAP_FAILED && shared_ == reinterpret_cast<u8*>(CpuFixture::kShared); }
  u8* memory() { return shared_; }

  void run(std::span<const u8> code, HostState& state) {
    std::vector<u8> out;
    const auto add = [&out](std::initializer_list<u8> bytes) { out.insert(out.end(), bytes); };
    add({0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x57});  // push rbx rbp r12-r15 rdi
    add({0xff, 0xb7, 0x80, 0, 0, 0, 0x9d});                                   // push [rdi+128]; popfq
    for (unsigned i = 0; i < 16; ++i)
      if (i != kRsp && i != kRdi) move(out, 0x8b, i);
    move(out, 0x8b, kRdi);
    out.insert(out.end(), code.begin(), code.end());
    add({0x48, 0x87, 0x3c, 0x24});  // xchg rdi, [rsp]
    for (unsigned i = 0; i < 16; ++i)
      if (i != kRsp && i != kRdi) move(out, 0x89, i);
    add({0x58});  // pop rax: the guest's rdi
    add({0x48, 0x89, 0x47, 0x38});
    add({0x9c, 0x8f, 0x87, 0x80, 0, 0, 0});                                         // pushfq; pop [rdi+128]
    add({0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3});  // cld, pops, ret
    std::memcpy(page_, out.data(), out.size());
    reinterpret_cast<void (*)(HostState*)>(page_)(&state);
  }

 private:
  // mov reg, [rdi + 8 * reg] or back.
  static void move(std::vector<u8>& out, u8 opcode, unsigned reg) {
    out.push_back(static_cast<u8>(0x48 | (reg >= 8 ? 4 : 0)));
    out.push_back(opcode);
    out.push_back(static_cast<u8>(0x47 | (reg & 7) << 3));
    out.push_back(static_cast<u8>(8 * reg));
  }
  u8* page_;
  u8* shared_;
};

class HostCompare : public testing::Test {
 protected:
  // Values where carries, signs and counts change, besides plain random ones.
  u64 value() {
    switch (random_() % 6) {
      case 0:
        return random_() % 4 - 2;
      case 1:
        return u64{1} << (random_() % 64);
      case 2:
        return (u64{1} << (random_() % 64)) - 1;
      case 3:
        return random_() & 0xff;
      default:
        return random_();
    }
  }

  // RBX points into the shared memory, RSP is left alone.
  void compare(std::span<const u8> code, const std::string& what) {
    HostState state{};
    for (u64& each : state.gpr) each = value();
    state.gpr[kRbx] = CpuFixture::kShared + 4000;
    state.gpr[kRsp] = CpuFixture::kStack;
    state.rflags = (random_() & kArithmeticFlags) | 0x202;
    u8 bytes[256];
    for (u8& each : bytes) each = static_cast<u8>(value());
    std::memcpy(host_.memory() + 3960, bytes, sizeof(bytes));
    guest_.put(0x600000 + 3960, bytes);

    guest_.long_mode(3);
    guest_.s().gpr = state.gpr;
    guest_.s().rflags = state.rflags;
    guest_.put(CpuFixture::kCode, code);
    ASSERT_NE(step(guest_.cpu()), StepResult::kShutdown);
    ASSERT_EQ(guest_.s().rip, CpuFixture::kCode + code.size()) << what << " did not complete";
    host_.run(code, state);
    for (unsigned i = 0; i < 16; ++i) ASSERT_EQ(guest_.s().gpr[i], state.gpr[i]) << what << " register " << i;
    ASSERT_EQ(guest_.s().rflags & kArithmeticFlags, state.rflags & kArithmeticFlags) << what << " flags";
    for (unsigned i = 0; i < sizeof(bytes); ++i)
      ASSERT_EQ(guest_.peek<u8>(0x600000 + 3960 + i), host_.memory()[3960 + i]) << what << " memory " << i;
  }

  // One opcode at 8, 16, 32 and 64 bits (opcode, opcode+1, with 66, with REX.W), register and memory forms.
  void all_sizes(std::vector<u8> opcode, int group, std::vector<u8> immediate8, bool has_byte_form,
                 bool wide_immediate = false) {
    for (int round = 0; round < 60; ++round) {
      for (unsigned size = has_byte_form ? 0 : 1; size < 4; ++size) {
        for (const bool memory : {false, true}) {
          std::vector<u8> code;
          if (size == 2) code.push_back(0x66);
          const u8 rex = static_cast<u8>(0x40 | (size == 3 ? 8 : 0) | (random_() & (memory ? 4 : 5)));
          if (rex != 0x40 || size == 0) code.push_back(rex);
          code.insert(code.end(), opcode.begin(), opcode.end() - 1);
          code.push_back(static_cast<u8>(opcode.back() + (size != 0 && has_byte_form ? 1 : 0)));
          const unsigned reg = group >= 0 ? static_cast<unsigned>(group) : pick_register();
          code.push_back(static_cast<u8>((memory ? 0x40 : 0xc0) | reg << 3 | (memory ? 3 : pick_register())));
          if (memory) code.push_back(static_cast<u8>(random_() & 0x7f));
          append_immediate(code, immediate8, wide_immediate, size);
          compare(code, describe(code));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  void append_immediate(std::vector<u8>& code, const std::vector<u8>& immediate8, bool wide, unsigned size) {
    if (!immediate8.empty()) code.push_back(static_cast<u8>(random_()));
    const unsigned count = !wide ? 0 : size == 0 ? 1 : size == 2 ? 2 : 4;
    for (unsigned i = 0; i < count; ++i) code.push_back(static_cast<u8>(random_()));
  }
  // Not RSP (4), not RBX (3); R12 and R11 with REX are fine, the bits are the same.
  unsigned pick_register() {
    static constexpr unsigned kAllowed[] = {0, 1, 2, 5, 6, 7};
    return kAllowed[random_() % 6];
  }
  static std::string describe(const std::vector<u8>& code) {
    std::string text;
    for (const u8 byte : code) text += fmt::format("{:02x} ", byte);
    return text;
  }

  void SetUp() override {
    if (!host_.ok())
      GTEST_SKIP() << "the host gave no executable memory or not at the address that is shared with the guest";
  }

  std::mt19937_64 random_{12345};
  CpuFixture guest_;
  HostRunner host_;
};

TEST_F(HostCompare, TwoOperandArithmetic) {
  for (u8 row = 0; row < 8; ++row) all_sizes({static_cast<u8>(row * 8)}, -1, {}, true);
  for (u8 row = 0; row < 8; ++row) all_sizes({static_cast<u8>(row * 8 + 2)}, -1, {}, true);
  all_sizes({0x84}, -1, {}, true);  // test
  all_sizes({0x86}, -1, {}, true);  // xchg
  all_sizes({0x88}, -1, {}, true);  // mov
  all_sizes({0x8a}, -1, {}, true);
  all_sizes({0x0f, 0xc0}, -1, {}, true);  // xadd
  all_sizes({0x0f, 0xb0}, -1, {}, true);  // cmpxchg
}
TEST_F(HostCompare, ImmediateArithmetic) {
  for (int group = 0; group < 8; ++group) {
    all_sizes({0x80}, group, {}, true, true);
    all_sizes({0x83}, group, {1}, false);
  }
  all_sizes({0xc6}, 0, {}, true, true);
  all_sizes({0xf6}, 0, {}, true, true);
  all_sizes({0x69}, -1, {}, false, true);
  all_sizes({0x6b}, -1, {1}, false);
}
TEST_F(HostCompare, OneOperandArithmetic) {
  for (const int group : {2, 3, 4, 5}) all_sizes({0xf6}, group, {}, true);
  for (const int group : {0, 1}) all_sizes({0xfe}, group, {}, true);
  all_sizes({0x0f, 0xaf}, -1, {}, false);
}
TEST_F(HostCompare, Shifts) {
  for (const int group : {0, 1, 2, 3, 4, 5, 7}) {
    all_sizes({0xc0}, group, {1}, true);
    all_sizes({0xd0}, group, {}, true);
    all_sizes({0xd2}, group, {}, true);
  }
  for (const u8 opcode : {0xa4, 0xac}) all_sizes({0x0f, opcode}, -1, {1}, false);
  for (const u8 opcode : {0xa5, 0xad}) all_sizes({0x0f, opcode}, -1, {}, false);
}
TEST_F(HostCompare, Bits) {
  for (const int group : {4, 5, 6, 7}) all_sizes({0x0f, 0xba}, group, {1}, false);
  all_sizes({0x0f, 0xbc}, -1, {}, false);
  all_sizes({0x0f, 0xbd}, -1, {}, false);
  all_sizes({0x0f, 0xb6}, -1, {}, false);
  all_sizes({0x0f, 0xb7}, -1, {}, false);
  all_sizes({0x0f, 0xbe}, -1, {}, false);
  all_sizes({0x0f, 0xbf}, -1, {}, false);
  all_sizes({0x63}, -1, {}, false);
  for (u8 cc = 0; cc < 16; ++cc) {
    all_sizes({0x0f, static_cast<u8>(0x40 + cc)}, -1, {}, false);
    all_sizes({0x0f, static_cast<u8>(0x90 + cc)}, 0, {}, false);
  }
}
// Instructions with mandatory prefixes or VEX, written out; registers RAX, RCX, RDX, RSI, R9.
TEST_F(HostCompare, Extensions) {
  const std::vector<std::vector<u8>> codes = {
      {0xf3, 0x0f, 0xb8, 0xc1},
      {0xf3, 0x48, 0x0f, 0xb8, 0xc1},
      {0x66, 0xf3, 0x0f, 0xb8, 0xc1},  // popcnt
      {0xf3, 0x0f, 0xbc, 0xc1},
      {0xf3, 0x48, 0x0f, 0xbc, 0x03},
      {0xf3, 0x0f, 0xbd, 0xc1},
      {0xf3, 0x48, 0x0f, 0xbd, 0xc1},
      {0xf2, 0x0f, 0x38, 0xf0, 0xc1},
      {0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc1},
      {0x66, 0xf2, 0x0f, 0x38, 0xf1, 0xc1},
      {0xf2, 0x0f, 0x38, 0xf1, 0x03},
      {0x66, 0x0f, 0x38, 0xf6, 0xc1},
      {0x66, 0x48, 0x0f, 0x38, 0xf6, 0xc1},
      {0xf3, 0x48, 0x0f, 0x38, 0xf6, 0xc1},
      {0xf3, 0x0f, 0x38, 0xf6, 0x03},
      {0x0f, 0x38, 0xf0, 0x03},
      {0x48, 0x0f, 0x38, 0xf0, 0x03},
      {0x66, 0x0f, 0x38, 0xf1, 0x03},
      {0xc4, 0xe2, 0x70, 0xf2, 0xc2},
      {0xc4, 0xe2, 0xf0, 0xf2, 0xc2},
      {0xc4, 0xe2, 0x68, 0xf7, 0xc1},
      {0xc4, 0xe2, 0xe8, 0xf7, 0xc1},
      {0xc4, 0xe2, 0x69, 0xf7, 0xc1},
      {0xc4, 0xe2, 0xea, 0xf7, 0xc1},
      {0xc4, 0xe2, 0xeb, 0xf7, 0xc1},
      {0xc4, 0xe2, 0x6a, 0xf7, 0xc1},
      {0xc4, 0xe2, 0x68, 0xf5, 0xc1},
      {0xc4, 0xe2, 0xe8, 0xf5, 0xc1},
      {0xc4, 0xe2, 0xf3, 0xf5, 0xc2},
      {0xc4, 0xe2, 0xf2, 0xf5, 0xc2},
      {0xc4, 0xe2, 0x73, 0xf6, 0xc6},
      {0xc4, 0xe2, 0xf3, 0xf6, 0xc6},
      {0xc4, 0xe2, 0xfb, 0xf6, 0xc6},
      {0xc4, 0xe3, 0xfb, 0xf0, 0xc1, 0x15},
      {0xc4, 0xe3, 0x7b, 0xf0, 0x03, 0x07},
      {0xc4, 0xe2, 0x78, 0xf3, 0xc9},
      {0xc4, 0xe2, 0xf8, 0xf3, 0xd1},
      {0xc4, 0xe2, 0xf8, 0xf3, 0xdb},
      {0x0f, 0xc8},
      {0x49, 0x0f, 0xc9},
      {0x66, 0x98},
      {0x98},
      {0x48, 0x98},
      {0x66, 0x99},
      {0x99},
      {0x48, 0x99},
      {0x9f},
      {0x9e},
      {0xf5},
      {0xf8},
      {0xf9},
      {0x48, 0x8d, 0x44, 0x8b, 0x10},
      {0x8d, 0x44, 0x4e, 0xf0},
      {0x67, 0x48, 0x8d, 0x04, 0xce},
      {0x66, 0x8d, 0x04, 0xce},
      {0xd7},
      {0x0f, 0xc7, 0x0b},
      {0xf0, 0x0f, 0xc7, 0x0b},
      {0xf0, 0x48, 0x01, 0x03},
      {0xf0, 0x66, 0x0f, 0xc1, 0x0b},
      {0xf0, 0xfe, 0x03},
      {0xf0, 0x48, 0x0f, 0xba, 0x2b, 0x3f},
      {0xf0, 0x0f, 0xb1, 0x0b},
      {0x48, 0x0f, 0xc3, 0x03},
      {0x00, 0xe0},
      {0x28, 0xfc},
      {0x48, 0x0f, 0xc7, 0x4b, 0x60},
      {0x48, 0x63, 0x03},
      {0x87, 0xc0},
      {0x0f, 0x1f, 0x40, 0x00},
      {0xf3, 0x90},
      {0x0f, 0xae, 0xe8},
  };
  for (const auto& code : codes)
    for (int round = 0; round < 200; ++round) {
      if (code.back() == 0xd7) break;  // XLAT reads where RBX and AL say: its own test
      compare(code, describe(code));
      if (HasFatalFailure()) return;
    }
}
// A register bit index reaches beyond the operand.
TEST_F(HostCompare, BitStrings) {
  for (const u8 opcode : {0xa3, 0xab, 0xb3, 0xbb})
    for (const u8 prefix : {0x66, 0x40, 0x48})
      for (int round = 0; round < 100; ++round) {
        // and ecx, 0x1ff; bt [rbx], ecx, with the index made small first by running the AND on both sides.
        const std::vector<u8> code{prefix, 0x0f, opcode, 0x0b};
        HostState state{};
        state.gpr[kRcx] = random_() % 1024 - 256;
        state.gpr[kRbx] = CpuFixture::kShared + 4064;
        state.rflags = 0x202;
        guest_.put(0x600000 + 3960, std::span{host_.memory() + 3960, 512});
        guest_.long_mode(3);
        guest_.s().gpr = state.gpr;
        guest_.put(CpuFixture::kCode, code);
        ASSERT_EQ(step(guest_.cpu()), StepResult::kNext);
        host_.run(code, state);
        ASSERT_EQ(guest_.s().rflags & kCf, state.rflags & kCf);
        for (unsigned i = 0; i < 512; ++i)
          ASSERT_EQ(guest_.peek<u8>(0x600000 + 3960 + i), host_.memory()[3960 + i]) << describe(code);
      }
}
// Divisions that do not trap, compared; those that do are #DE.
TEST_F(HostCompare, Divisions) {
  for (int round = 0; round < 4000; ++round) {
    const bool is_signed = round & 1;
    const unsigned size = 1u << (random_() % 4);
    HostState state{};
    for (u64& each : state.gpr) each = value();
    state.gpr[kRsp] = CpuFixture::kStack;
    if (random_() % 2) state.gpr[kRdx] = is_signed && (state.gpr[kRax] >> (8 * size - 1) & 1) ? ~u64{0} : 0;
    state.rflags = 0x202;
    std::vector<u8> code;
    if (size == 2) code.push_back(0x66);
    if (size == 8) code.push_back(0x48);
    code.push_back(size == 1 ? 0xf6 : 0xf7);
    code.push_back(is_signed ? 0xf9 : 0xf1);
    guest_.long_mode(0);
    guest_.s().gpr = state.gpr;
    guest_.put(CpuFixture::kCode, code);
    step(guest_.cpu());
    if (guest_.fault_vector() == 0u) continue;
    ASSERT_EQ(guest_.s().rip, CpuFixture::kCode + code.size());
    host_.run(code, state);  // SIGFPE here: the interpreter let something through
    for (unsigned i = 0; i < 16; ++i) ASSERT_EQ(guest_.s().gpr[i], state.gpr[i]) << describe(code) << i;
    ASSERT_EQ(guest_.s().rflags & kArithmeticFlags, state.rflags & kArithmeticFlags) << describe(code);
  }
}

}  // namespace
}  // namespace bulkhead::engine::dbt
