// What happens to the guest: system calls, exceptions, events [xen/arch-x86/xen.h trap_info].
#include <xen/errno.h>
#include <xen/xen.h>

#include <array>
#include <cstring>
#include <thread>

#include "abi/xen/pv/call.h"

namespace bulkhead::abi::xen::pv {
namespace {

enum : u8 { kDe = 0, kDb = 1, kNmi = 2, kBp = 3, kOf = 4, kUd = 6, kNm = 7, kGp = 13, kPf = 14 };
constexpr u32 kErrorPresent = 1, kErrorWrite = 2, kErrorUser = 4, kErrorReserved = 8;

bool in_kernel(const engine::DeprivilegedCpu& cpu) { return cpu.mode() == engine::GuestMode::kKernel; }

}  // namespace

void Guest::trap(Cpu& cpu, const engine::Trap& trap) {
  switch (trap.kind) {
    case engine::Trap::Kind::kSyscall:
      system_call(cpu, trap);
      break;
    case engine::Trap::Kind::kSysenter:
      sysenter(cpu, trap);
      break;
    case engine::Trap::Kind::kSoftwareInterrupt:
      software_interrupt(cpu, trap);
      break;
    case engine::Trap::Kind::kException:
      exception(cpu, trap);
      break;
  }
  deliver_events(cpu);
}

void Guest::crash(Cpu& cpu, const std::string& why) {
  cpu.set_halted(true);
  ended_(ShutdownReason::kCrash,
         fmt::format("{} (vCPU {}, RIP {:#x}, RSP {:#x})", why, cpu.index(), cpu.rip(), cpu.gpr()[Cpu::kRsp]));
}

// ---- system calls

void Guest::system_call(Cpu& cpu, const engine::Trap& trap) {
  if (in_kernel(cpu)) return run_hypercall(cpu, trap.return_rip);
  VcpuRecord& v = record(cpu);
  auto& gpr = cpu.gpr();
  const bool wide = cpu.in_64bit_code();
  gpr[Cpu::kRcx] = cpu.rip() = trap.return_rip;
  gpr[Cpu::kR11] = cpu.rflags();
  // As the hardware leaves them: what they were is not known any more.
  cpu.set_flat_code_and_stack(wide ? FLAT_USER_CS64 : FLAT_USER_CS32, FLAT_USER_SS64);
  bounce(cpu, wide ? v.syscall : v.syscall32);
}

void Guest::run_hypercall(Cpu& cpu, u64 return_rip) {
  auto& gpr = cpu.gpr();
  cpu.rip() = return_rip;
  const u64 number = gpr[Cpu::kRax];
  Call call{*this, cpu};
  call.v.work = 0;
  call.v.call_again = false;
  const Answer answer = domain_->hypercall(
      call, number, {gpr[Cpu::kRdi], gpr[Cpu::kRsi], gpr[Cpu::kRdx], gpr[Cpu::kR10], gpr[Cpu::kR8], gpr[Cpu::kR9]});
  if (call.v.call_again) {
    cpu.rip() = return_rip - 2;  // its `syscall`
  } else if (number != __HYPERVISOR_iret) {
    gpr[Cpu::kRax] = static_cast<u64>(answer.value);
    gpr[Cpu::kRcx] = return_rip;  // as after SYSRET
    gpr[Cpu::kR11] = cpu.rflags();
  }
  switch (answer.after) {
    case After::kRun:
      break;
    case After::kYield:
      std::this_thread::yield();
      break;
    case After::kBlock:
      cpu.set_halted(true);
      domain_->set_runstate(cpu.index(), Runstate::kBlocked);
      attention(cpu);  // for an event that was faster
      break;
    case After::kDown:
      cpu.set_halted(true);
      domain_->set_runstate(cpu.index(), Runstate::kOffline);
      break;
    case After::kEnd:
      cpu.set_halted(true);
      break;
  }
}

void Guest::sysenter(Cpu& cpu, const engine::Trap& trap) {
  VcpuRecord& v = record(cpu);
  if (in_kernel(cpu) || v.sysenter.address == 0) return inject(cpu, kGp, 0);
  cpu.rip() = trap.return_rip;
  bounce(cpu, v.sysenter);
}

void Guest::software_interrupt(Cpu& cpu, const engine::Trap& trap) {
  const TrapEntry& entry = record(cpu).traps[trap.vector];
  if (entry.privilege < (in_kernel(cpu) ? 1 : 3)) return inject(cpu, kGp, trap.vector * 8u + 2);
  cpu.rip() = trap.return_rip;
  counters_[kGuestTraps].add();
  bounce(cpu, {entry.address, entry.mask_events});
}

// ---- exceptions

void Guest::exception(Cpu& cpu, const engine::Trap& trap) {
  cpu.rip() = trap.return_rip;
  VcpuRecord& v = record(cpu);
  switch (trap.vector) {
    case kPf:
      return page_fault(cpu, trap);
    case kGp:
      if (emulate(cpu, in_kernel(cpu))) return;
      return inject(cpu, kGp, trap.error);
    case kUd:
      if (forced_cpuid(cpu)) return;
      return inject(cpu, kUd, {});
    case kNm:
      cpu.set_task_switched(false);
      v.cr0 &= ~u64{8};
      return inject(cpu, kNm, {});
    default:
      return inject(cpu, trap.vector, trap.has_error ? std::optional{trap.error} : std::nullopt);
  }
}

void Guest::page_fault(Cpu& cpu, const engine::Trap& trap) {
  u32 error = trap.error & ~kErrorUser;
  if (!in_kernel(cpu)) error |= kErrorUser;
  const bool may_be_table =
      (error & (kErrorPresent | kErrorWrite | kErrorUser | kErrorReserved)) == (kErrorPresent | kErrorWrite);
  if (may_be_table && write_page_table(cpu, trap.address)) return;
  VcpuRecord& v = record(cpu);
  v.cr2 = trap.address;
  domain_->set_cr2(cpu.index(), trap.address);
  inject(cpu, kPf, error);
}

// "Writable page tables": the guest's kernel writes to a table of the lowest level as if it could. Its instruction runs
// on a copy; what it changed there is checked and done. False: this is an ordinary page fault.
bool Guest::write_page_table(Cpu& cpu, u64 linear) {
  if (!Call::allowed(linear, 1)) return false;
  const auto machine = cpu.translate(linear, false);
  if (!machine) return false;
  const u64 frame = *machine >> kPageShift;
  if (!memory_.is_leaf_table(frame)) return false;
  const std::byte* const page = memory_.guest_page(frame);
  if (page == nullptr) return false;
  const u64 rip = cpu.rip(), flags = cpu.rflags();
  const std::array<u64, 16> gpr = cpu.gpr();
  std::array<u64, kEntries> before, copy;
  for (unsigned tries = 0; tries < 8; ++tries) {
    std::memcpy(before.data(), page, kPageSize);
    copy = before;
    if (!cpu.step_into_copy(linear & ~u64{0xfff}, reinterpret_cast<std::byte*>(copy.data()))) return false;
    const PageTables::Written written = memory_.write_leaf_table(frame, before.data(), copy.data(), forgetting(cpu));
    if (written == PageTables::Written::kDone) {
      counters_[kEmulatedTableWrites].add();
      return true;
    }
    cpu.rip() = rip;
    cpu.gpr() = gpr;
    cpu.set_rflags(flags);
    if (written == PageTables::Written::kRefused) return false;
  }
  return true;  // other vCPUs change it all the time: the instruction faults again, and we meet it again
}

void Guest::inject(Cpu& cpu, u8 vector, std::optional<u32> error) {
  const TrapEntry& entry = record(cpu).traps[vector];
  counters_[kGuestTraps].add();
  if (entry.address == 0)
    return crash(cpu, fmt::format("exception {} with no handler in the guest{}", vector,
                                  vector == kPf ? fmt::format(", address {:#x}", record(cpu).cr2) : std::string{}));
  bounce(cpu, {entry.address, entry.mask_events}, error);
}

// ---- events

void Guest::deliver_events(Cpu& cpu) {
  if (cpu.halted()) return;
  VcpuRecord& v = record(cpu);
  if (v.nmi_pending.load(std::memory_order_acquire) && !v.in_nmi && v.nmi.address != 0) {
    v.nmi_pending.store(false, std::memory_order_relaxed);
    v.in_nmi = true;
    return bounce(cpu, v.nmi);
  }
  if (domain_->upcall_pending(cpu.index()) && v.event.address != 0) bounce(cpu, v.event);
}

void Guest::attention(Cpu& cpu) {
  VcpuRecord& v = record(cpu);
  if (!domain_->online(cpu.index())) return;
  if (v.start != nullptr) begin(cpu);
  if (cpu.halted()) {
    if (!domain_->may_run(cpu.index()) && !v.nmi_pending.load(std::memory_order_acquire)) return;
    cpu.set_halted(false);
    domain_->set_runstate(cpu.index(), Runstate::kRunning);
  }
  deliver_events(cpu);
}

void Guest::send_nmi(unsigned vcpu) {
  vcpus_[vcpu]->nmi_pending.store(true, std::memory_order_release);
  partition_.signal_attention(vcpu);
}

void Guest::note_written(u64 frame) { memory_.note_written(frame); }

}  // namespace bulkhead::abi::xen::pv
