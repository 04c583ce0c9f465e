// The asm cases on the bare host CPU, the interpreter and the translator.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xbyak/xbyak.h>

#include <iostream>

#include "tests/insn/asm_cases.h"
#include "tests/insn/compare.h"
#include "tests/insn/dbt_runner.h"
#include "tests/insn/native_runner.h"

namespace bulkhead::insn {
namespace {

Case assemble(const AsmCase& from) {
  Case test;
  test.start = kCodeBase + 0x100;
  Xbyak::CodeGenerator code{Case::kMaxCode};
  from.emit(code);
  test.length = static_cast<u8>(code.getSize());
  std::memcpy(test.code.data(), code.getCode(), code.getSize());
  test.insn_count = 1;
  test.before.gpr[6] = kDataBase;
  test.before.gpr[4] = kDataBase + 0x1000;
  for (const RegisterValue& value : from.before) test.before.gpr[value.reg] = value.value;
  test.before.flags = 0x202;
  return test;
}

void check(const AsmCase& from, const Case& test, const Outcome& outcome) {
  const u64 rip = from.vector == kNoFault ? test.end() : test.start + from.fault_offset;
  EXPECT_EQ(outcome.vector, from.vector);
  EXPECT_EQ(outcome.registers.rip, rip);
  EXPECT_EQ(outcome.error, from.error);
  EXPECT_EQ(outcome.registers.flags & from.flags_mask, from.flags);
  for (const RegisterValue& value : from.after)
    EXPECT_EQ(outcome.registers.gpr[value.reg], value.value) << "register " << +value.reg;
}

// In a child, for the sandbox lies at fixed addresses and a bad case may do anything.
void run_all(std::unique_ptr<CaseRunner> (*make)()) {
  std::cout.flush();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::unique_ptr<CaseRunner> runner = make();
    for (const AsmCase& from : asm_cases()) {
      SCOPED_TRACE(std::string{from.name});
      const Case test = assemble(from);
      runner->load({&test, 1});
      Outcome outcome;
      runner->run(test, outcome);
      check(from, test, outcome);
    }
    std::cout.flush();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

TEST(AsmCases, OnTheHostCpu) { run_all(make_native_runner); }
TEST(AsmCases, OnTheInterpreter) { run_all(make_interpreter_runner); }
TEST(AsmCases, OnTheTranslator) { run_all(make_translator_runner); }

}  // namespace
}  // namespace bulkhead::insn
