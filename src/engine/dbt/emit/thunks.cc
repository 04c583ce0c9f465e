#include "engine/dbt/emit/thunks.h"

#include <cstddef>

namespace bulkhead::engine::dbt {
namespace {

using namespace Xbyak::util;

constexpr u8 kCallerSaved[] = {0, 1, 2, 4, 6, 7};  // guest registers that a C++ function may destroy
constexpr u8 kCalleeSaved[] = {3, 5, 12, 13, 14, 15};

class ThunkWriter {
 public:
  ThunkWriter(CodeWriter& w, std::ptrdiff_t to_executable) : w_{w}, to_executable_{to_executable} {}

  Thunks write() {
    Thunks t;
    leave();
    t.enter = reinterpret_cast<u32 (*)(CpuState*, const void*)>(const_cast<u8*>(enter()));
    t.exit_lookup = exit_with_rip(JitExit::kLookup);
    t.exit_poll = exit_with_rip(JitExit::kPoll);
    t.exit_vectors = exit_with_rip(JitExit::kVectors);
    t.exit_link = exit_link();
    t.miss = miss();
    t.interpret = interpret();
    t.host_fault = host_fault();
    return t;
  }

 private:
  const u8* here() {
    w_.align(16);
    return w_.getCurr() + to_executable_;
  }
  template <class List>
  void spill(const List& guests, u32 bias = 0) {
    for (const u8 guest : guests) w_.mov(ptr[rsp + bias + 8 * guest], Xbyak::Reg64{host_register(guest)});
  }
  template <class List>
  void reload(const List& guests, u32 bias = 0) {
    for (const u8 guest : guests) w_.mov(Xbyak::Reg64{host_register(guest)}, ptr[rsp + bias + 8 * guest]);
  }

  // EAX = JitExit, guest registers spilled, RSP = CpuState.
  void leave() {
    w_.align(16);
    w_.L(leave_);
    w_.mov(rsp, ptr[rsp + static_cast<u32>(offsetof(CpuState, host_rsp))]);
    w_.pop(r15);
    w_.pop(r14);
    w_.pop(r13);
    w_.pop(r12);
    w_.pop(rbp);
    w_.pop(rbx);
    w_.ret();
    w_.align(16);
    w_.L(spill_and_leave_);  // R9D = JitExit
    spill(kHeldGuestRegisters);
    w_.mov(eax, r9d);
    w_.jmp(leave_, Xbyak::CodeGenerator::T_NEAR);
  }
  const u8* enter() {
    const u8* const at = here();
    for (const Xbyak::Reg64& reg : {rbx, rbp, r12, r13, r14, r15}) w_.push(reg);
    w_.mov(ptr[rdi + static_cast<u32>(offsetof(CpuState, host_rsp))], rsp);
    w_.mov(rsp, rdi);
    w_.mov(r8, rsi);
    reload(kHeldGuestRegisters);
    w_.jmp(r8);
    return at;
  }
  const u8* exit_with_rip(JitExit why) {
    const u8* const at = here();
    w_.mov(ptr[rsp + static_cast<u32>(offsetof(CpuState, rip))], r8);
    w_.mov(r9d, static_cast<u32>(why));
    w_.jmp(spill_and_leave_, Xbyak::CodeGenerator::T_NEAR);
    return at;
  }
  const u8* exit_link() {
    const u8* const at = here();
    w_.mov(ptr[rsp + scratch_offset(kScratchLink)], r8);
    w_.mov(r9d, static_cast<u32>(JitExit::kLink));
    w_.jmp(spill_and_leave_, Xbyak::CodeGenerator::T_NEAR);
    return at;
  }
  // Called from a block, so the CpuState lies 8 bytes above RSP; the extra 8 align the stack for C++.
  const u8* miss() {
    const u8* const at = here();
    w_.sub(rsp, 8);
    spill(kCallerSaved, 16);
    w_.mov(ptr[rsp + 16 + scratch_offset(kScratchMiss)], r9);
    w_.mov(rdi, ptr[rsp + 16 + kTablesOffset + static_cast<u32>(offsetof(JitTables, cpu))]);
    w_.mov(rsi, r8);
    w_.mov(edx, r9d);
    w_.call(ptr[rsp + 16 + kTablesOffset + static_cast<u32>(offsetof(JitTables, miss))]);
    w_.test(rax, rax);
    Xbyak::Label failed;
    w_.jz(failed);
    w_.mov(r8, rax);
    reload(kCallerSaved, 16);
    w_.add(rsp, 8);
    w_.ret();
    w_.L(failed);
    w_.mov(r8, ptr[rsp + 8]);  // where in the block
    w_.add(rsp, 16);
    w_.mov(ptr[rsp + static_cast<u32>(offsetof(CpuState, jit_exit_rip))], r8);
    spill(kCalleeSaved);
    w_.mov(eax, static_cast<u32>(JitExit::kMiss));
    w_.jmp(leave_, Xbyak::CodeGenerator::T_NEAR);
    return at;
  }
  const u8* interpret() {
    const u8* const at = here();
    w_.sub(rsp, 8);
    spill(kHeldGuestRegisters, 16);
    w_.mov(rdi, ptr[rsp + 16 + kTablesOffset + static_cast<u32>(offsetof(JitTables, cpu))]);
    w_.mov(rsi, r8);
    w_.call(ptr[rsp + 16 + kTablesOffset + static_cast<u32>(offsetof(JitTables, interpret))]);
    w_.test(eax, eax);
    Xbyak::Label out;
    w_.jnz(out);
    reload(kHeldGuestRegisters, 16);
    w_.add(rsp, 8);
    w_.ret();
    w_.L(out);
    w_.add(rsp, 16);
    w_.cmp(eax, static_cast<u32>(JitExit::kGoOn));
    w_.jne(leave_, Xbyak::CodeGenerator::T_NEAR);
    reload(kHeldGuestRegisters);
    w_.jmp(ptr[rsp + scratch_offset(kScratchTarget)]);
    return at;
  }
  const u8* host_fault() {
    const u8* const at = here();
    w_.mov(r9d, static_cast<u32>(JitExit::kHostFault));
    w_.jmp(spill_and_leave_, Xbyak::CodeGenerator::T_NEAR);
    return at;
  }

  CodeWriter& w_;
  const std::ptrdiff_t to_executable_;
  Xbyak::Label leave_, spill_and_leave_;
};

}  // namespace

Thunks write_thunks(CodeWriter& w, std::ptrdiff_t to_executable) { return ThunkWriter{w, to_executable}.write(); }

}  // namespace bulkhead::engine::dbt
