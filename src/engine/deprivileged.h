// Guests whose kernel runs without privilege (Xen PV): kernel and user code both in ring 3, in 64-bit mode, with paging
// on and no IDT. Whatever a CPU would do about an exception or a system call is done by the guest ABI above the engine,
// which sees the vCPU as below. An engine that cannot do this refuses Partition::set_deprivileged().
#pragma once
#include <array>
#include <cstddef>
#include <optional>
#include <span>

#include "base/ints.h"

namespace bulkhead::engine {

enum class GuestMode : u8 { kKernel, kUser };  // each has its own page tables

struct Trap {
  enum class Kind : u8 { kException, kSoftwareInterrupt, kSyscall, kSysenter };
  Kind kind = Kind::kException;
  u8 vector = 0;
  bool has_error = false;
  u32 error = 0;
  u64 address = 0;  // of a page fault
  // Where the guest goes on: the faulting instruction, or the one behind a trap, INT n or SYSCALL.
  u64 return_rip = 0;
};

// A vCPU between two guest instructions. Only within a call of DeprivilegedGuest, on the vCPU's thread.
class DeprivilegedCpu {
 public:
  enum Register : u8 { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15 };
  enum Segment : u8 { kEs, kCs, kSs, kDs, kFs, kGs };

  virtual ~DeprivilegedCpu() = default;
  virtual unsigned index() const = 0;
  virtual std::array<u64, 16>& gpr() = 0;
  virtual u64& rip() = 0;
  // Interrupts are always on and I/O privilege is 0: IF reads as 1, IOPL, VM, NT as 0, whatever is set.
  virtual u64 rflags() const = 0;
  virtual void set_rflags(u64 value) = 0;

  virtual GuestMode mode() const = 0;
  virtual void set_mode(GuestMode mode) = 0;
  // Guest-physical addresses of the top-level tables (4-level). Nothing is flushed.
  virtual void set_roots(u64 kernel, u64 user) = 0;
  virtual u64 root(GuestMode mode) const = 0;
  // Without its kernel half: pages of the upper half of the address space may stay, what lies there below kKernelHalf
  // because it is the monitor's and the same everywhere.
  virtual void flush_tlb(bool kernel_half_too) = 0;
  virtual void flush_page(u64 linear) = 0;
  // The entry of that number (0 to 511) in some table of the lowest level maps `gpa_page` no longer, or no longer as it
  // did. Translations for data that came from it go; those for code only by flushing.
  virtual void forget_entry(unsigned number, u64 gpa_page) = 0;
  // All of the TLBs of the vCPUs in `mask`; returns when none of them uses an old translation any more. Never wait for
  // a vCPU while holding a lock that a DeprivilegedGuest's call may want.
  virtual void flush_others(u64 mask) = 0;
  static constexpr u64 kKernelHalf = 0xffff880000000000;

  // Memory as the guest kernel reaches it. False: some of it would fault; a prefix may be done.
  [[nodiscard]] virtual bool read(u64 linear, std::span<std::byte> out) = 0;
  [[nodiscard]] virtual bool write(u64 linear, std::span<const std::byte> in) = 0;
  // Guest-physical address, as the guest kernel could read (or write) it; no accessed or dirty bits are set.
  virtual std::optional<u64> translate(u64 linear, bool write) = 0;
  // Up to 15 bytes of code at RIP in the present mode; how many could be read.
  virtual unsigned read_code(std::span<std::byte, 16> out) = 0;
  // Runs the instruction at RIP with its writes to the page at `linear` (page aligned) going to `copy` instead. False:
  // it faulted or is not one that can be run like this; nothing has changed then.
  virtual bool step_into_copy(u64 linear, std::byte* copy) = 0;

  virtual bool in_64bit_code() const = 0;
  virtual u16 selector(Segment segment) const = 0;
  virtual u64 base(Segment segment) const = 0;
  virtual void set_base(Segment segment, u64 base) = 0;  // FS and GS; canonical
  virtual u64& hidden_gs_base() = 0;                     // what SWAPGS would exchange
  // Loads through the descriptor tables. False: the selector cannot be loaded in ring 3; nothing has changed.
  virtual bool load_segment(Segment segment, u16 selector) = 0;
  virtual bool load_code_and_stack(u16 cs, u16 ss) = 0;
  virtual void set_flat_code_and_stack(u16 cs, u16 ss) = 0;  // 64-bit code; no look at the tables
  virtual void set_descriptor_table(bool local, u64 base,
                                    u32 limit) = 0;  // read as a supervisor through the kernel's root

  virtual u64 debug_register(unsigned index) const = 0;
  virtual void set_debug_register(unsigned index, u64 value) = 0;  // the caller has checked it
  virtual bool task_switched() const = 0;                          // CR0.TS
  virtual void set_task_switched(bool set) = 0;
  virtual u64 cr4() const = 0;
  virtual void set_cr4(u64 value) = 0;  // the caller keeps to bits that are allowed
  virtual bool set_xcr0(u64 value) = 0;
  // As RDMSR and WRMSR in ring 0. False: the engine does not know it, or refuses the value.
  virtual bool read_msr(u32 index, u64& value) = 0;
  virtual bool write_msr(u32 index, u64 value) = 0;
  virtual void cpuid() = 0;  // of EAX, ECX, into EAX to EDX
  virtual u64 tsc() const = 0;
  virtual void set_tsc_aux(u64 value) = 0;
  virtual bool halted() const = 0;
  virtual void set_halted(bool halted) = 0;
  virtual void reset_vector_state() = 0;  // x87, SSE and up as after reset
  virtual void set_vector_state(std::span<const std::byte, 512> fxsave) = 0;
};

class DeprivilegedGuest {
 public:
  virtual ~DeprivilegedGuest() = default;
  virtual void trap(DeprivilegedCpu& cpu, const Trap& trap) = 0;
  // Partition::signal_attention() was called for this vCPU, possibly several times; also before its first instruction.
  virtual void attention(DeprivilegedCpu& cpu) = 0;
};

}  // namespace bulkhead::engine
