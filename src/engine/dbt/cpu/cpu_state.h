// The state that translated code reaches by fixed offsets from the host's RSP: standard layout, nothing owning.
// Only the vCPU's own thread touches it, except the fields marked [any thread].
#pragma once
#include <array>
#include <atomic>
#include <cstddef>

#include "base/ints.h"

namespace bulkhead::engine::dbt {

enum Gpr : u8 { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15 };
enum Seg : u8 { kEs, kCs, kSs, kDs, kFs, kGs };

struct Segment {
  u16 selector = 0;
  u16 attributes = 0;  // as engine::SegmentState: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11, unusable 12
  u32 limit = 0;       // bytes, after granularity
  u64 base = 0;
  unsigned dpl() const { return (attributes >> 5) & 3; }
  bool present() const { return (attributes >> 7) & 1; }
  bool long_mode() const { return (attributes >> 9) & 1; }
  bool big() const { return (attributes >> 10) & 1; }
  bool unusable() const { return (attributes >> 12) & 1; }
};
struct DescriptorTable {
  u64 base = 0;
  u32 limit = 0;
};

// One software TLB entry. A tag is the page's linear address when that kind of access may go straight to
// `addend + linear`, else kNoTag. Pages that are not plain RAM, or whose access needs a side effect first (dirty bit,
// code on the page, breakpoint), have no tag for it.
struct TlbEntry {
  u64 read_tag;
  u64 write_tag;
  u64 addend;    // host address minus linear address
  u64 gpa_page;  // guest-physical page address | flags (kTlbGlobal, ...)
};
inline constexpr u64 kNoTag = ~u64{0};
inline constexpr u64 kTlbGlobal = 1;
inline constexpr u64 kTlbUsed = 2;  // entry is in the fill log
inline constexpr unsigned kTlbBits = 12;
inline constexpr unsigned kTlbEntries = 1u << kTlbBits;
// An address's slot. A better hash would cost every access one more instruction, which is more than it saves
// (measured).
constexpr unsigned tlb_slot(u64 linear) { return static_cast<unsigned>(linear >> 12) & (kTlbEntries - 1); }

// Which set of permissions an access runs under; each has its own TLB.
enum class TlbSpace : u8 {
  kSupervisor,
  kSupervisorAc,
  kUser
};  // kSupervisorAc: user pages reachable (SMAP off or EFLAGS.AC)
inline constexpr unsigned kTlbSpaces = 3;

// Reasons to leave translated code at the next block boundary.
enum Pending : u32 {
  kPendingInterrupt = 1,  // the LAPIC or the 8259 may have something deliverable
  kPendingNmi = 2,
  kPendingKick = 4,        // Vcpu::kick()
  kPendingInvalidate = 8,  // another vCPU asks to drop translations or TLB entries
  kPendingInit = 16,
  kPendingSipi = 32,
  kPendingSmi = 64,         // never set; reserved
  kPendingAttention = 128,  // Partition::signal_attention()
  kPendingFlush = 256,      // another vCPU of a deprivileged guest asks for a TLB flush
};

struct alignas(64) CpuState {
  std::array<u64, 16> gpr{};
  u64 rip = 0;
  // All of RFLAGS whenever C++ code runs. Translated code keeps the arithmetic flags in the host's or in jit_flags.
  u64 rflags = 2;
  std::atomic<u32> pending{0};  // Pending bits [any thread]
  u32 jit_flags = 0;            // LAHF/SETO image: AH in bits 15:8, OF in bit 0
  u64 jit_scratch[6]{};
  u64 host_rsp = 0;  // of the frame that entered translated code
  u64 jit_exit_rip = 0;

  std::array<Segment, 6> seg{};
  Segment ldtr, tr;
  DescriptorTable gdtr, idtr;
  u64 cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0;  // CR8 is the LAPIC's TPR
  u64 efer = 0;
  u64 xcr0 = 1;
  u64 xss = 0;
  std::array<u64, 8> dr{};
  u8 cpl = 0;
  bool interrupt_shadow = false;  // after STI, MOV SS, POP SS: no interrupt before the next instruction
  bool nmi_blocked = false;
  bool halted = false;
  bool fpu_live = false;                       // guest x87/vector state is in the host's registers, not in `xsave`
  TlbSpace tlb_space = TlbSpace::kSupervisor;  // for ordinary data accesses at the present CPL, AC, SMAP

  // MSRs [SDM-4].
  u64 star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0, tsc_aux = 0;
  u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  u64 pat = 0x0007040600070406, misc_enable = 1, mtrr_def_type = 0, spec_ctrl = 0;
  u64 tsc_offset = 0;  // guest TSC = host TSC + offset
  u64 tsc_adjust = 0;

  // Standard-format XSAVE image of the guest [SDM-1 §13.4]; valid when !fpu_live.
  alignas(64) std::array<std::byte, 4096> xsave{};

  alignas(64) TlbEntry tlb[kTlbSpaces][kTlbEntries];
};
static_assert(offsetof(CpuState, gpr) == 0);

}  // namespace bulkhead::engine::dbt
