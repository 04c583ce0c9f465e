// KVM's exits in the vocabulary of engine/exit.h, and the answers back. Source: [kvm-api "The kvm_run structure"].
#include <bit>
#include <cstring>

#include "base/assert.h"
#include "engine/kvm/ioctl.h"
#include "engine/kvm/vcpu.h"

namespace bulkhead::engine::kvm {
namespace {

std::string internal_error(const kvm_run& run) {
  const auto& internal = run.internal;
  const char* what = "of a kind that we do not know";
  if (internal.suberror == KVM_INTERNAL_ERROR_EMULATION) what = "it cannot emulate the instruction";
  if (internal.suberror == KVM_INTERNAL_ERROR_SIMUL_EX) what = "two exceptions at once";
  if (internal.suberror == KVM_INTERNAL_ERROR_DELIVERY_EV) what = "an exit while an event was being delivered";
  if (internal.suberror == KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON) what = "an exit that it does not know";
  std::string text = fmt::format("internal error {}: {}", internal.suberror, what);
  const u32 count = std::min<u32>(internal.ndata, 16);
  for (u32 i = 0; i < count; ++i) text += fmt::format("{}{:#x}", i == 0 ? ", data " : " ", internal.data[i]);
  return text;
}

// The most that the rest of an access can be in one exit.
unsigned piece_size(unsigned rest) { return std::bit_floor(std::min(rest, 8u)); }

}  // namespace

KvmVcpu::Step KvmVcpu::exited() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      return port_exit();
    case KVM_EXIT_MMIO:
      return mmio_exit();
    case KVM_EXIT_X86_RDMSR:
      return msr_exit(false);
    case KVM_EXIT_X86_WRMSR:
      return msr_exit(true);
    case KVM_EXIT_XEN:
      return xen_exit();
    case KVM_EXIT_IOAPIC_EOI:
      if (vm_.eoi_handler) vm_.eoi_handler(run_->eoi.vector);
      return Step::kGoOn;
    case KVM_EXIT_DIRTY_RING_FULL:
      vm_.ring_full();
      return Step::kGoOn;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
      return Step::kGoOn;
    case KVM_EXIT_HLT:
      exit_ = HaltExit{};
      return Step::kExit;
    case KVM_EXIT_SHUTDOWN:
      shut_down_ = true;
      exit_ = ShutdownExit{};
      return Step::kExit;
    case KVM_EXIT_FAIL_ENTRY:
      return failure(fmt::format("the processor refuses to enter the guest: hardware reason {:#x}, on CPU {}",
                                 run_->fail_entry.hardware_entry_failure_reason, run_->fail_entry.cpu));
    case KVM_EXIT_INTERNAL_ERROR:
      return failure(internal_error(*run_));
    case KVM_EXIT_UNKNOWN:
      return failure(fmt::format("hardware exit {:#x}, which it does not know", run_->hw.hardware_exit_reason));
    default:
      return failure(fmt::format("exit {}, which we did not ask for", run_->exit_reason));
  }
}

KvmVcpu::Step KvmVcpu::failure(std::string what) {
  failed_ = true;
  exit_ = FailureExit{fmt::format("KVM: {}; {}", what, describe())};
  return Step::kExit;
}

// ---- exits

KvmVcpu::Step KvmVcpu::port_exit() {
  const auto& io = run_->io;
  incomplete_ = true;
  if (vm_.hypercalls == HypercallWay::kPort && io.port == kHypercallPort && io.direction == KVM_EXIT_IO_OUT &&
      io.size == 4 && io.count == 1)
    return port_call();
  owed_ = Owed::kPort;
  piece_ = 0;
  return port_piece();
}

// One element of a repeated IN or OUT after the other.
KvmVcpu::Step KvmVcpu::port_piece() {
  const auto& io = run_->io;
  PortExit exit{.port = io.port, .size = io.size, .write = io.direction == KVM_EXIT_IO_OUT};
  const auto* const data = reinterpret_cast<const std::byte*>(run_) + io.data_offset + u64{piece_} * io.size;
  if (exit.write) std::memcpy(&exit.value, data, io.size);
  exit_ = exit;
  return Step::kExit;
}

KvmVcpu::Step KvmVcpu::mmio_exit() {
  incomplete_ = true;
  owed_ = Owed::kMmio;
  piece_ = 0;
  return mmio_piece();
}

KvmVcpu::Step KvmVcpu::mmio_piece() {
  const auto& mmio = run_->mmio;
  piece_bytes_ = piece_size(std::min(mmio.len, 8u) - piece_);
  MmioExit exit{
      .address = Gpa{mmio.phys_addr + piece_}, .size = static_cast<u8>(piece_bytes_), .write = mmio.is_write != 0};
  if (exit.write) std::memcpy(&exit.value, mmio.data + piece_, piece_bytes_);
  exit_ = exit;
  return Step::kExit;
}

KvmVcpu::Step KvmVcpu::msr_exit(bool write) {
  incomplete_ = true;
  owed_ = Owed::kMsr;
  exit_ = MsrExit{.index = run_->msr.index, .write = write, .value = write ? run_->msr.data : 0};
  return Step::kExit;
}

KvmVcpu::Step KvmVcpu::xen_exit() {
  if (run_->xen.type != KVM_EXIT_XEN_HCALL) return failure(fmt::format("Xen exit of type {}", run_->xen.type));
  incomplete_ = true;
  const auto& call = run_->xen.u.hcall;
  if (call.cpl != 0) {
    run_->xen.u.hcall.result = static_cast<u64>(-1);  // -EPERM, as Xen has it
    return Step::kGoOn;
  }
  HypercallExit exit{.number = call.input, .long_mode = call.longmode != 0};
  std::copy(std::begin(call.params), std::end(call.params), exit.args.begin());
  owed_ = Owed::kXenCall;
  exit_ = exit;
  return Step::kExit;
}

// Our own way where KVM has none: see Partition::hypercall_code().
KvmVcpu::Step KvmVcpu::port_call() {
  const kvm_regs& r = run_->s.regs.regs;
  const bool long_mode = (special().efer & 0x400) != 0 && special().cs.l != 0;
  HypercallExit exit{.number = r.rax, .args = {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9}, .long_mode = long_mode};
  if (!long_mode) {
    exit.number = static_cast<u32>(r.rax);
    exit.args = {r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp};
    for (u64& argument : exit.args) argument = static_cast<u32>(argument);
  }
  owed_ = Owed::kPortCall;
  exit_ = exit;
  return Step::kExit;
}

// ---- answers

KvmVcpu::Step KvmVcpu::take_answer() {
  switch (std::exchange(owed_, Owed::kNothing)) {
    case Owed::kNothing:
      break;
    case Owed::kPort: {
      const auto& io = run_->io;
      const PortExit& exit = std::get<PortExit>(exit_);
      if (!exit.write)
        std::memcpy(reinterpret_cast<std::byte*>(run_) + io.data_offset + u64{piece_} * io.size, &exit.value, io.size);
      if (++piece_ == io.count) break;
      owed_ = Owed::kPort;
      return port_piece();
    }
    case Owed::kMmio: {
      const MmioExit& exit = std::get<MmioExit>(exit_);
      if (!exit.write) std::memcpy(run_->mmio.data + piece_, &exit.value, piece_bytes_);
      piece_ += piece_bytes_;
      if (piece_ >= std::min(run_->mmio.len, 8u)) break;
      owed_ = Owed::kMmio;
      return mmio_piece();
    }
    case Owed::kMsr: {
      const MsrExit& exit = std::get<MsrExit>(exit_);
      run_->msr.error = exit.fault ? 1 : 0;
      if (!exit.write) run_->msr.data = exit.value;
      break;
    }
    case Owed::kXenCall: {
      const HypercallExit& exit = std::get<HypercallExit>(exit_);
      run_->xen.u.hcall.result = exit.long_mode ? exit.result : static_cast<u32>(exit.result);
      break;
    }
    case Owed::kPortCall: {
      const HypercallExit& exit = std::get<HypercallExit>(exit_);
      run_->s.regs.regs.rax = exit.long_mode ? exit.result : static_cast<u32>(exit.result);
      run_->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
      break;
    }
  }
  return Step::kGoOn;
}

}  // namespace bulkhead::engine::kvm
