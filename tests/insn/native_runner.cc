#include "tests/insn/native_runner.h"

#include <asm/prctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <xbyak/xbyak.h>

#include <csignal>

#include "base/assert.h"
#include "engine/dbt/simd/host_fault.h"
#include "tests/insn/xsave_image.h"

namespace bulkhead::insn {
namespace {

constexpr u64 kBlockBase = 0x30000000;  // state and thunks, reached RIP-relative, so that it needs no register
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

struct Block {
  alignas(64) std::array<std::byte, kImageSize> image_in;
  alignas(64) std::array<std::byte, kImageSize> image_out;
  alignas(64) std::array<std::byte, kImageSize> host_defaults;
  std::array<u64, 16> in, out;
  u64 flags_in, flags_out, target, host_rsp;
};

struct Capture {
  volatile bool active = false;
  u64 resume_at = 0;
  int vector = kNoFault;
  u32 error = 0;
  u64 address = 0, rip = 0;
};
Capture capture;
struct sigaction earlier[std::size(kSignals)];

void on_signal(int signal, siginfo_t* info, void* raw_context) {
  auto& registers = static_cast<ucontext_t*>(raw_context)->uc_mcontext.gregs;
  if (!capture.active) {
    for (unsigned i = 0; i < std::size(kSignals); ++i) {
      if (kSignals[i] != signal) continue;
      if (earlier[i].sa_flags & SA_SIGINFO && earlier[i].sa_sigaction)
        return earlier[i].sa_sigaction(signal, info, raw_context);
      sigaction(signal, &earlier[i], nullptr);
    }
    return;
  }
  capture.active = false;
  capture.vector = static_cast<int>(registers[REG_TRAPNO]);
  capture.error = static_cast<u32>(registers[REG_ERR]);
  capture.address = static_cast<u64>(registers[REG_CR2]);
  capture.rip = static_cast<u64>(registers[REG_RIP]);
  registers[REG_RIP] = static_cast<i64>(capture.resume_at);
}

u8* map_at(u64 address, u64 size, int protection) {
  void* at = mmap(reinterpret_cast<void*>(address), size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                  -1, 0);
  BH_ASSERT(at == reinterpret_cast<void*>(address));
  return static_cast<u8*>(at);
}

class NativeRunner final : public CaseRunner {
 public:
  NativeRunner() {
    code_ = map_at(kCodeBase, kCodeSize, PROT_READ | PROT_WRITE);
    std::memset(code_, 0xcc, kCodeSize);  // present, as the guest's pages are
    data_ = map_at(kDataBase, kDataSize, PROT_READ | PROT_WRITE);
    std::memcpy(data_, initial_data().data(), kDataSize);
    BH_ASSERT(mprotect(data_ + kWritableSize, kReadOnlySize, PROT_READ) == 0);
    u8* at = map_at(kBlockBase, sizeof(Block) + 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    block_ = new (at) Block{};
    to_image(Registers{}, block_->host_defaults.data());
    generate(at + ((sizeof(Block) + 4095) & ~size_t{4095}));
    BH_ASSERT(syscall(SYS_arch_prctl, ARCH_SET_GS, kGsBase) == 0);
    engine::dbt::ensure_fault_stack();
    static char unused;
    engine::dbt::register_fault_range(&unused, &unused + 1, nullptr, nullptr);  // its handler first, ours before it
    unused_ = &unused;
    struct sigaction action{};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (unsigned i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &earlier[i]);
  }
  ~NativeRunner() override {
    for (unsigned i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &earlier[i], nullptr);
    engine::dbt::unregister_fault_range(unused_);
    munmap(code_, kCodeSize);
    munmap(data_, kDataSize);
    munmap(block_, sizeof(Block) + 8192);
  }

  std::string_view name() const override { return "native"; }

  void load(std::span<const Case> batch) override {
    BH_ASSERT(mprotect(code_, kCodeSize, PROT_READ | PROT_WRITE) == 0);
    for (const Case& test : batch) {
      u8* at = code_ + (test.start - kCodeBase);
      std::memcpy(at, test.code.data(), test.length);
      const u8 jump[6] = {0xff, 0x25, 0, 0, 0, 0};  // jmp [rip+0]
      std::memcpy(at + test.length, jump, 6);
      std::memcpy(at + test.length + 6, &capture.resume_at, 8);
    }
    BH_ASSERT(mprotect(code_, kCodeSize, PROT_READ | PROT_EXEC) == 0);
  }

  void run(const Case& test, Outcome& outcome) override {
    reset_memory();
    for (unsigned i = 0; i < test.patch_count; ++i)
      std::memcpy(reinterpret_cast<void*>(test.patches[i].address), test.patches[i].bytes.data(), test.patches[i].size);
    to_image(test.before, block_->image_in.data());
    block_->in = test.before.gpr;
    block_->flags_in = test.before.flags;
    block_->target = test.start;
    capture.vector = kNoFault;
    capture.error = 0;
    capture.address = 0;
    capture.active = true;
    enter_();
    capture.active = false;
    Registers& registers = outcome.registers;
    registers.gpr = block_->out;
    registers.flags = block_->flags_out;
    from_image(block_->image_out.data(), registers);
    outcome.vector = capture.vector;
    registers.rip = capture.vector == kNoFault ? test.end() : capture.rip;
    outcome.error = capture.vector == kNoFault ? 0 : capture.error;
    outcome.address = capture.vector == 14 ? capture.address : 0;
    restore_needed_ = true;
  }

  std::span<const u8> memory() const override { return {data_, kWritableSize}; }

 private:
  void reset_memory() {
    if (restore_needed_) std::memcpy(data_, initial_data().data(), kWritableSize);
    restore_needed_ = false;
  }

  void generate(u8* at) {
    Xbyak::CodeGenerator c{4096, at};
    const auto absolute = [&](const void* field) { return c.ptr[c.rip + field]; };
    const auto quad = [&](const void* field) { return c.qword[c.rip + field]; };
    const Xbyak::Reg64 callee_saved[] = {c.rbx, c.rbp, c.r12, c.r13, c.r14, c.r15};
    for (const auto& reg : callee_saved) c.push(reg);
    c.mov(absolute(&block_->host_rsp), c.rsp);
    const auto with_state = [&](u32 opcode, const void* image) {
      c.mov(c.rcx, reinterpret_cast<u64>(image));
      c.mov(c.eax, static_cast<u32>(image_components()));
      c.xor_(c.edx, c.edx);
      c.db(opcode, 4);
    };
    with_state(0x29ae0f48, block_->image_in.data());  // xrstor64 [rcx]
    c.push(quad(&block_->flags_in));
    c.popfq();
    for (int i = 0; i < 16; ++i)
      if (i != 4) c.mov(Xbyak::Reg64(i), absolute(&block_->in[i]));
    c.mov(c.rsp, absolute(&block_->in[4]));
    c.jmp(quad(&block_->target));
    capture.resume_at = reinterpret_cast<u64>(c.getCurr());
    for (int i = 0; i < 16; ++i) c.mov(absolute(&block_->out[i]), Xbyak::Reg64(i));
    c.mov(c.rsp, absolute(&block_->host_rsp));
    c.pushfq();
    c.pop(quad(&block_->flags_out));
    c.cld();
    with_state(0x21ae0f48, block_->image_out.data());  // xsave64 [rcx]
    with_state(0x29ae0f48, block_->host_defaults.data());
    for (int i = 5; i >= 0; --i) c.pop(callee_saved[i]);
    c.ret();
    enter_ = reinterpret_cast<void (*)()>(at);
  }

  u8* code_ = nullptr;
  u8* data_ = nullptr;
  Block* block_ = nullptr;
  const void* unused_ = nullptr;
  void (*enter_)() = nullptr;
  bool restore_needed_ = true;
};

}  // namespace

std::unique_ptr<CaseRunner> make_native_runner() { return std::make_unique<NativeRunner>(); }

}  // namespace bulkhead::insn
