// What Xen keeps for each vCPU of a PV guest beside its registers. Only the vCPU's own thread touches it while the vCPU
// is online; before that whoever initialises it.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "base/ints.h"

namespace bulkhead::abi::xen::pv {

struct Callback {
  u64 address = 0;
  bool mask_events = false;
};

struct TrapEntry {
  u64 address = 0;  // 0: none
  u16 selector = 0;
  u8 privilege = 0;  // who may raise it by INT: 3 user code, 1 or more the kernel
  bool mask_events = false;
};

// Registers that a vCPU starts with, once.
struct StartContext {
  std::array<u64, 16> gpr{};  // in the order of engine::DeprivilegedCpu::Register
  u64 rip = 0, rflags = 0x202;
  u16 cs = 0, ss = 0, ds = 0, es = 0, fs = 0, gs = 0;
  u64 fs_base = 0, gs_base_kernel = 0, gs_base_user = 0;
  bool in_kernel = true, flat = false;  // flat: no look at the descriptor tables
  bool vector_state_valid = false;
  std::array<std::byte, 512> vector_state{};
  std::array<u64, 8> debug{};
};

struct VcpuRecord {
  std::array<TrapEntry, 256> traps;
  Callback event, failsafe, syscall, syscall32, sysenter, nmi;
  u64 kernel_sp = 0;
  u16 kernel_ss = 0;
  u64 cr0 = 0;  // as the guest set it; TS of it counts
  u64 cr2 = 0;
  u8 iopl = 0;
  bool auto_ibrs = false;              // EFER.AIBRSE
  u64 kernel_root = 0, user_root = 0;  // frames; user_root 0: none
  std::vector<u64> gdt_frames;
  u32 gdt_entries = 0;
  u64 ldt_base = 0;
  u32 ldt_entries = 0;
  std::vector<u64> ldt_frames;
  std::atomic<bool> initialised{false};  // by the domain builder or VCPUOP_initialise, for good
  std::unique_ptr<StartContext> start;   // until it has begun to run
  // PageTables::losses() that its translations reflect: what it loses itself it forgets at once, so that a flush has
  // nothing to do unless others, or entries that lead to whole tables, were lost meanwhile. Others read it.
  std::atomic<u64> losses_known{0};
  u64 work = 0;             // done in this hypercall so far: mmu_calls.cc
  bool call_again = false;  // the hypercall goes on by being made again
  std::atomic<bool> nmi_pending{false};
  bool in_nmi = false;
};

}  // namespace bulkhead::abi::xen::pv
