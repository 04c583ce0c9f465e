// The way into the guest kernel's handlers and back [xen/arch-x86/xen-x86_64.h iret_context, xen/callback.h].
#include <xen/errno.h>
#include <xen/xen.h>

#include <algorithm>

#include "abi/xen/pv/call.h"

namespace bulkhead::abi::xen::pv {
namespace {

constexpr u64 kTf = 1u << 8, kIf = 1u << 9, kIoplBits = 3u << 12, kNt = 1u << 14, kRf = 1u << 16, kVm = 1u << 17,
              kAc = 1u << 18;

// The kernel is told apart from its users by the privilege in the saved selector.
u16 saved_cs(u16 cs, bool kernel) { return kernel ? static_cast<u16>(cs & ~3u) : cs; }

}  // namespace

// Kernel and user mode each have their GS base.
void Guest::toggle(Cpu& cpu) {
  cpu.set_mode(cpu.mode() == engine::GuestMode::kKernel ? engine::GuestMode::kUser : engine::GuestMode::kKernel);
  const u64 other = cpu.hidden_gs_base();
  cpu.hidden_gs_base() = cpu.base(Cpu::kGs);
  cpu.set_base(Cpu::kGs, other);
}

u64 Guest::guest_flags(const Cpu& cpu, bool masked) {
  u64 flags = cpu.rflags() & ~(kIf | kIoplBits);
  if (!masked) flags |= kIf;
  if (domain_->vm_assists() & (u64{1} << VMASST_TYPE_architectural_iopl)) flags |= u64{vcpus_[cpu.index()]->iopl} << 12;
  return flags;
}

// Onto the kernel's stack, 16-byte aligned before the first word; `words` from the lowest address up.
bool Guest::push_frame(Cpu& cpu, std::span<const u64> words) {
  const u64 at = cpu.gpr()[Cpu::kRsp] - words.size_bytes();
  if (!Call::allowed(at, words.size_bytes()) || !cpu.write(at, std::as_bytes(words))) return false;
  cpu.gpr()[Cpu::kRsp] = at;
  return true;
}

// A frame is RCX, R11, what the handler is told, and where the guest was.
void Guest::enter_kernel(Cpu& cpu, const Callback& handler, std::span<const u64> told, u16 cs, u16 ss) {
  constexpr std::size_t kMostTold = 4;
  BH_ASSERT(told.size() <= kMostTold);
  const bool from_kernel = cpu.mode() == engine::GuestMode::kKernel;
  const bool masked = domain_->upcall_masked(cpu.index());
  auto& gpr = cpu.gpr();
  const u64 rsp = gpr[Cpu::kRsp], flags = guest_flags(cpu, masked);
  if (!from_kernel) toggle(cpu);
  gpr[Cpu::kRsp] = (from_kernel ? rsp : record(cpu).kernel_sp) & ~u64{15};
  std::array<u64, 7 + kMostTold> words{gpr[Cpu::kRcx], gpr[Cpu::kR11]};
  u64* const rest = std::ranges::copy(told, &words[2]).out;
  std::ranges::copy(std::array{cpu.rip(), saved_cs(cs, from_kernel) | u64{masked} << 32, flags, rsp, u64{ss}}, rest);
  if (!push_frame(cpu, std::span{words}.first(7 + told.size())))
    return crash(cpu, "the guest kernel's stack cannot be written");
  cpu.set_flat_code_and_stack(FLAT_KERNEL_CS, FLAT_KERNEL_SS);
  cpu.set_rflags(cpu.rflags() & ~(kTf | kNt | kRf | kVm | kAc));
  cpu.rip() = handler.address;
  if (handler.mask_events) domain_->set_upcall_masked(cpu.index(), true);
}

void Guest::bounce(Cpu& cpu, const Callback& handler, std::optional<u32> error) {
  if (handler.address == 0) return crash(cpu, "the guest has no handler for what happened to it");
  const u64 code = error.value_or(0);
  enter_kernel(cpu, handler, std::span{&code, error ? 1u : 0u}, cpu.selector(Cpu::kCs), cpu.selector(Cpu::kSs));
}

// The guest asked to go on with selectors that cannot be loaded.
void Guest::bounce_failsafe(Cpu& cpu, u16 cs, u16 ss) {
  const Callback& failsafe = record(cpu).failsafe;
  counters_[kFailsafes].add();
  if (failsafe.address == 0) return crash(cpu, "the guest returned to bad selectors and has no failsafe callback");
  const u64 data[] = {cpu.selector(Cpu::kDs), cpu.selector(Cpu::kEs), cpu.selector(Cpu::kFs), cpu.selector(Cpu::kGs)};
  enter_kernel(cpu, failsafe, data, cs, ss);
}

// RAX, R11 and RCX come from the frame too: the value returned goes into RAX.
Answer Guest::iret(Cpu& cpu) {
  struct iret_context frame;
  if (!cpu.read(cpu.gpr()[Cpu::kRsp], std::as_writable_bytes(std::span{&frame, 1}))) {
    crash(cpu, "iret: the guest kernel's stack cannot be read");
    return {0, After::kEnd};
  }
  VcpuRecord& v = record(cpu);
  const bool to_user = (frame.cs & 3) == 3;
  if (to_user && v.user_root == 0) {
    crash(cpu, "iret: to user mode without user page tables");
    return {0, After::kEnd};
  }
  if (domain_->vm_assists() & (u64{1} << VMASST_TYPE_architectural_iopl))
    v.iopl = static_cast<u8>((frame.rflags >> 12) & 3);
  auto& gpr = cpu.gpr();
  const auto cs = static_cast<u16>(frame.cs | 3), ss = static_cast<u16>(frame.ss | 3);
  cpu.rip() = frame.rip;
  gpr[Cpu::kRsp] = frame.rsp;
  // A system call returns with what SYSRET would leave there.
  gpr[Cpu::kR11] = (frame.flags & VGCF_in_syscall) ? frame.rflags : frame.r11;
  gpr[Cpu::kRcx] = (frame.flags & VGCF_in_syscall) ? frame.rip : frame.rcx;
  gpr[Cpu::kRax] = frame.rax;
  domain_->set_upcall_masked(cpu.index(), !(frame.rflags & kIf));
  v.in_nmi = false;
  cpu.set_rflags(frame.rflags & ~(kVm | kNt));
  const bool loaded = cpu.load_code_and_stack(cs, ss);
  if (to_user) toggle(cpu);
  if (!loaded) bounce_failsafe(cpu, cs, ss);
  return {static_cast<i64>(frame.rax), After::kRun};
}

}  // namespace bulkhead::abi::xen::pv
