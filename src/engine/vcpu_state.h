// The whole architectural state of a vCPU in one engine-neutral form: what is read from one engine can be written
// into another. Register numbering is the instruction encoding's: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15.
#pragma once
#include <array>
#include <optional>
#include <vector>

#include "base/ints.h"

namespace bulkhead::engine {

struct SegmentState {
  u16 selector = 0;
  u64 base = 0;
  u32 limit = 0;       // in bytes, after granularity
  u16 attributes = 0;  // type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11, unusable 12
  bool operator==(const SegmentState&) const = default;
};
struct TableState {
  u64 base = 0;
  u16 limit = 0;
  bool operator==(const TableState&) const = default;
};
struct MsrValue {
  u32 index = 0;
  u64 value = 0;
  bool operator==(const MsrValue&) const = default;
};
enum class MpState : u8 { kRunnable, kHalted, kWaitForSipi, kInitReceived };

// Exception that was recognised but not yet delivered.
struct PendingEvent {
  u8 vector = 0;
  std::optional<u32> error_code;
  u64 address = 0;  // CR2 for #PF
  bool operator==(const PendingEvent&) const = default;
};

struct VcpuState {
  std::array<u64, 16> gpr{};
  u64 rip = 0;
  u64 rflags = 2;
  std::array<SegmentState, 6> segments{};  // ES CS SS DS FS GS
  SegmentState ldtr, tr;
  TableState gdtr, idtr;
  u64 cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0;
  u64 efer = 0;
  u64 xcr0 = 1;
  std::array<u64, 8> dr{};       // dr4 and dr5 unused
  std::vector<MsrValue> msrs;    // every MSR of the CPU model that has no field above, ascending by index
  std::vector<std::byte> xsave;  // standard (non-compacted) XSAVE area [SDM-1 §13.4]
  std::array<u8, 1024> lapic{};  // the xAPIC register page's first KiB, as KVM_GET_LAPIC lays it out
  std::optional<PendingEvent> pending_exception;
  std::optional<u8> pending_interrupt;  // a vector accepted but not delivered
  bool nmi_pending = false;
  bool nmi_blocked = false;
  bool interrupt_shadow = false;  // after STI or MOV SS
  MpState mp_state = MpState::kRunnable;
  u64 paravirt_clock_ns = 0;  // what KVM's own guest ABI shows as time since the start, where vCPU 0 has it; 0: nothing
};

inline constexpr u16 kSegmentUnusable = 1u << 12;

}  // namespace bulkhead::engine
