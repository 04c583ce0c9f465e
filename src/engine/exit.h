// Exits: the guest handing control to us. One vocabulary for every engine; the names are also the metric names.
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <variant>

#include "base/ints.h"

namespace bulkhead::engine {

// The caller of Vcpu::run() fills `value` of a read before it calls run() again; the engine then completes the
// guest's instruction. `value` holds the data of a write, zero-extended.
struct PortExit {
  u16 port = 0;
  u8 size = 1;  // 1, 2 or 4 bytes
  bool write = false;
  u64 value = 0;
};
struct MmioExit {
  Gpa address;
  u8 size = 1;  // 1, 2, 4 or 8 bytes; wider accesses come as several exits
  bool write = false;
  u64 value = 0;
};
// An MSR that the engine does not implement. `fault` is set by the caller when the guest shall get #GP.
struct MsrExit {
  u32 index = 0;
  bool write = false;
  u64 value = 0;
  bool fault = true;
};
// VMCALL or VMMCALL in ring 0, with its registers as Xen's ABI names them: RAX; RDI RSI RDX R10 R8 R9, in other than
// 64-bit code EAX; EBX ECX EDX ESI EDI EBP. `result` goes into RAX. No other register changes.
struct HypercallExit {
  u64 number = 0;
  std::array<u64, 6> args{};
  bool long_mode = false;     // made by 64-bit code
  u64 result = ~u64{0} - 37;  // -ENOSYS, which every hypercall ABI has for "unknown"
};
// HLT that nothing can wake (interrupts off, no NMI source). Halts that can be woken are waited out in the engine.
struct HaltExit {};
enum class ShutdownReason : u8 { kTripleFault, kInit };
struct ShutdownExit {
  ShutdownReason reason = ShutdownReason::kTripleFault;
};
// kick() was called, or the engine wants its caller to look at its control state. Nothing is owed.
struct KickedExit {};
// The engine cannot go on. `reason` is one line for a person: registers and the bytes at RIP included where known.
struct FailureExit {
  std::string reason;
};

using Exit = std::variant<PortExit, MmioExit, MsrExit, HypercallExit, HaltExit, ShutdownExit, KickedExit, FailureExit>;

inline constexpr std::array<std::string_view, std::variant_size_v<Exit>> kExitNames = {
    "port", "mmio", "msr", "hypercall", "halt", "shutdown", "kicked", "failure"};
inline std::string_view exit_name(const Exit& exit) { return kExitNames[exit.index()]; }

}  // namespace bulkhead::engine
