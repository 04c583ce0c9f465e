#include "engine/describe.h"

#include <fmt/format.h>

namespace bulkhead::engine {
namespace {

constexpr std::string_view kGprNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr std::string_view kSegNames[] = {"es", "cs", "ss", "ds", "fs", "gs"};
constexpr u64 kLma = 0x400;
constexpr u16 kLongCode = 1u << 9;

std::string bytes_at(u64 linear, const std::function<std::optional<u8>(u64)>& read_byte) {
  std::string out;
  for (u64 i = 0; i < 16; ++i) {
    const auto byte = read_byte(linear + i);
    if (!byte) return out + " (not readable from here on)";
    out += fmt::format(" {:02x}", *byte);
  }
  return out;
}

}  // namespace

std::string describe_state(const VcpuState& s, const std::function<std::optional<u8>(u64)>& read_byte) {
  const SegmentState& cs = s.segments[1];
  const bool code64 = (s.efer & kLma) && (cs.attributes & kLongCode);
  std::string out =
      fmt::format("rip {:#x} rflags {:#x} cpl {} bytes{}", s.rip, s.rflags, s.segments[2].attributes >> 5 & 3,
                  bytes_at(code64 ? s.rip : s.rip + cs.base, read_byte));
  for (std::size_t i = 0; i < 16; ++i)
    out += fmt::format("{}{} {:#x}", i % 8 == 0 ? "; " : " ", kGprNames[i], s.gpr[i]);
  out += ";";
  for (std::size_t i = 0; i < 6; ++i)
    out += fmt::format(" {} {:#x}@{:#x}", kSegNames[i], s.segments[i].selector, s.segments[i].base);
  out += fmt::format("; cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x} idt {:#x}", s.cr0, s.cr2, s.cr3, s.cr4,
                     s.efer, s.idtr.base);
  if (s.mp_state == MpState::kWaitForSipi)
    out += "; waits for a start-up message";
  else if (s.mp_state == MpState::kHalted)
    out += "; halted";
  return out;
}

}  // namespace bulkhead::engine
