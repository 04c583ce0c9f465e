#include "engine/dbt/simd/host_fault.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

namespace bulkhead::engine::dbt {
namespace {

// A page of code: the instruction under test, then RET at offset 16, where the callback resumes.
class CodePage {
 public:
  explicit CodePage(std::initializer_list<u8> code) {
    page_ =
        static_cast<u8*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    std::memset(page_, 0xc3, 4096);
    std::copy(code.begin(), code.end(), page_);
  }
  ~CodePage() { munmap(page_, 4096); }
  void run() { reinterpret_cast<void (*)()>(page_)(); }
  u8* page_;
};

struct Seen {
  int signal = 0;
  i64 vector = -1;
};
bool note(void* owner, ucontext_t* context, int signal, siginfo_t*) {
  auto* seen = static_cast<Seen*>(owner);
  seen->signal = signal;
  seen->vector = context->uc_mcontext.gregs[REG_TRAPNO];
  context->uc_mcontext.gregs[REG_RIP] = (context->uc_mcontext.gregs[REG_RIP] & ~4095) + 16;
  return true;
}

Seen fault_of(std::initializer_list<u8> code) {
  CodePage page{code};
  Seen seen;
  ensure_fault_stack();
  register_fault_range(page.page_, page.page_ + 4096, note, &seen);
  page.run();
  unregister_fault_range(page.page_);
  return seen;
}

TEST(HostFault, InvalidOpcodeReachesTheOwnerOfTheRange) {
  const Seen seen = fault_of({0x0f, 0x0b});
  EXPECT_EQ(seen.signal, SIGILL);
  EXPECT_EQ(seen.vector, 6);
}

TEST(HostFault, NullReadReachesTheOwnerOfTheRange) {
  const Seen seen = fault_of({0x31, 0xc0, 0x8b, 0x00});  // xor eax,eax; mov eax,[rax]
  EXPECT_EQ(seen.signal, SIGSEGV);
  EXPECT_EQ(seen.vector, 14);
}

TEST(HostFault, DivideErrorReachesTheOwnerOfTheRange) {
  const Seen seen = fault_of({0x31, 0xc9, 0xf7, 0xf1});  // xor ecx,ecx; div ecx
  EXPECT_EQ(seen.signal, SIGFPE);
  EXPECT_EQ(seen.vector, 0);
}

TEST(HostFault, RangesAreForgottenWhenUnregistered) {
  CodePage page{0xc3};
  Seen seen;
  register_fault_range(page.page_, page.page_ + 4096, note, &seen);
  EXPECT_TRUE(in_fault_range(reinterpret_cast<u64>(page.page_) + 4095));
  EXPECT_FALSE(in_fault_range(reinterpret_cast<u64>(page.page_) + 4096));
  unregister_fault_range(page.page_);
  EXPECT_FALSE(in_fault_range(reinterpret_cast<u64>(page.page_)));
}

TEST(HostFaultDeathTest, FaultOutsideTheRangesStillKills) {
  CodePage other{0xc3};
  Seen seen;
  register_fault_range(other.page_, other.page_ + 4096, note, &seen);
  EXPECT_DEATH(
      {
        CodePage bad({0x0f, 0x0b});
        bad.run();
      },
      "");
  unregister_fault_range(other.page_);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
