#include "engine/dbt/simd/stub.h"

#include <xbyak/xbyak.h>

#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "engine/dbt/cache/code_memory.h"
#include "engine/dbt/simd/host_fault.h"
#include "engine/dbt/simd/xstate.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr size_t kStubSize = 32;  // instruction (15) and a jump (5), one per plan slot
constexpr size_t kCommonSize = 4096;
constexpr size_t kArenaSize = kCommonSize + kPlanSlots * kStubSize;

CodeMemory make_memory() {
  auto memory = CodeMemory::create(kArenaSize);
  BH_ASSERT(memory.has_value());
  return std::move(*memory);
}

// Code of one thread: the common entry and exit, then a stub per plan slot.
class StubArena {
 public:
  StubArena() {
    defaults_.resize(4096 + 64);
    auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<u64>(defaults_.data()) + 63) & ~u64{63});
    XsaveView view{aligned};
    view.materialize(kXX87);
    view.set_mxcsr(kMxcsrDefault);
    generate(aligned);
    ensure_fault_stack();
    register_fault_range(memory_.begin(), memory_.end(), on_fault, this);
    written_.resize(kPlanSlots);
  }
  ~StubArena() { unregister_fault_range(memory_.begin()); }

  void run(const SimdPlan& plan, unsigned slot, StubFrame& frame) {
    u8* const stub = memory_.writable() + kCommonSize + slot * kStubSize;
    if (written_[slot] != plan.serial) write_stub(plan, stub);
    written_[slot] = plan.serial;
    frame.insn_address = reinterpret_cast<u64>(memory_.executable(stub));
    enter_(&frame, memory_.executable(stub));
  }

 private:
  void write_stub(const SimdPlan& plan, u8* stub) {
    std::memcpy(stub, plan.host_bytes.data(), plan.host_length);
    u8* jump = stub + plan.host_length;
    const i32 distance = static_cast<i32>(leave_ - memory_.executable(jump + 5));
    jump[0] = 0xe9;
    std::memcpy(jump + 1, &distance, 4);
  }

  // enter(rdi = StubFrame*, rsi = stub). RBX holds the frame while the guest's state is loaded; the stub jumps to
  // `leave`.
  void generate(const std::byte* defaults) {
    Xbyak::CodeGenerator c{kCommonSize, memory_.writable()};
    const auto field = [&](size_t offset) { return c.ptr[c.rbx + static_cast<int>(offset)]; };
    c.push(c.rbx);
    c.push(c.rbp);
    c.mov(c.rbx, c.rdi);
    c.mov(c.rbp, c.rsi);
    c.mov(c.eax, field(offsetof(StubFrame, components)));
    c.xor_(c.edx, c.edx);
    c.mov(c.rcx, field(offsetof(StubFrame, state_in)));
    c.db(0x29ae0f48, 4);  // xrstor64 [rcx]
    c.mov(c.rsi, field(offsetof(StubFrame, memory)));
    c.mov(c.rdi, c.rsi);  // the implied operand of MASKMOVDQU
    c.push(c.qword[c.rbx + offsetof(StubFrame, flags)]);
    c.popfq();
    c.mov(c.rax, field(offsetof(StubFrame, rax)));
    c.mov(c.rcx, field(offsetof(StubFrame, rcx)));
    c.mov(c.rdx, field(offsetof(StubFrame, rdx)));
    c.jmp(c.rbp);
    leave_ = memory_.executable(c.getCurr());
    c.mov(field(offsetof(StubFrame, rax)), c.rax);
    c.mov(field(offsetof(StubFrame, rcx)), c.rcx);
    c.mov(field(offsetof(StubFrame, rdx)), c.rdx);
    c.pushfq();
    c.pop(c.qword[c.rbx + offsetof(StubFrame, flags)]);
    c.mov(c.eax, field(offsetof(StubFrame, components)));
    c.xor_(c.edx, c.edx);
    c.mov(c.rcx, field(offsetof(StubFrame, state_out)));
    // What XSAVEOPT leaves out is initial, or unchanged since the XRSTOR of this image.
    if (host_xstate().has_xsaveopt)
      c.db(0x31ae0f48, 4);  // xsaveopt64 [rcx]
    else
      c.db(0x21ae0f48, 4);  // xsave64 [rcx]
    c.mov(c.rcx, reinterpret_cast<u64>(defaults));
    c.mov(c.eax, static_cast<u32>(host_xstate().xcr0));
    c.db(0x29ae0f48, 4);
    c.pop(c.rbp);
    c.pop(c.rbx);
    c.ret();
    enter_ = reinterpret_cast<Enter>(reinterpret_cast<u64>(memory_.begin()));
  }

  static bool on_fault(void* owner, ucontext_t* context, int, siginfo_t*) {
    const auto* arena = static_cast<StubArena*>(owner);
    auto& registers = context->uc_mcontext.gregs;
    // Faults of the common code, and page faults at all, would be mistakes of ours: images are checked before they get
    // here, and a stub touches only our own memory.
    if (static_cast<u64>(registers[REG_RIP]) < reinterpret_cast<u64>(arena->memory_.begin()) + kCommonSize)
      return false;
    if (registers[REG_TRAPNO] == 14) return false;
    reinterpret_cast<StubFrame*>(registers[REG_RBX])->fault = registers[REG_TRAPNO];
    registers[REG_RIP] = reinterpret_cast<i64>(arena->leave_);
    return true;
  }

  using Enter = void (*)(StubFrame*, const u8*);
  CodeMemory memory_ = make_memory();
  const u8* leave_ = nullptr;  // executable
  Enter enter_ = nullptr;
  std::vector<std::byte> defaults_;
  std::vector<u64> written_;  // serial of the plan whose stub is there
};

}  // namespace

void run_stub(const SimdPlan& plan, unsigned slot, StubFrame& frame) {
  static thread_local StubArena arena;
  arena.run(plan, slot, frame);
}

}  // namespace bulkhead::engine::dbt
