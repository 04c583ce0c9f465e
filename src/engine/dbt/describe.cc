// A vCPU in words, for a failure report: registers, and the bytes at RIP.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/dbt/vcpu.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr std::string_view kGprNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr std::string_view kSegNames[] = {"es", "cs", "ss", "ds", "fs", "gs"};

// Reads through the page tables without setting a bit in them.
std::string bytes_at(Cpu& cpu, u64 linear) {
  std::string out;
  for (u64 i = 0; i < 16; ++i) {
    const auto translation = cpu.walk(linear + i, Access::kExecute, cpu.s.cpl == 3, true);
    const std::byte* const page = translation.ok ? cpu.shared.ram(translation.gpa) : nullptr;
    if (page == nullptr) return out + " (not readable from here on)";
    out += fmt::format(" {:02x}", std::to_integer<unsigned>(page[translation.gpa & (kPageSize - 1)]));
  }
  return out;
}

}  // namespace

std::string DbtVcpu::describe() {
  const CpuState& s = cpu_.s;
  const u64 linear = cpu_.code_size() == CodeSize::k64 ? s.rip : s.rip + s.seg[kCs].base;
  std::string out =
      fmt::format("rip {:#x} rflags {:#x} cpl {} bytes{}", s.rip, s.rflags, s.cpl, bytes_at(cpu_, linear));
  for (std::size_t i = 0; i < 16; ++i)
    out += fmt::format("{}{} {:#x}", i % 8 == 0 ? "; " : " ", kGprNames[i], s.gpr[i]);
  out += ";";
  for (std::size_t i = 0; i < 6; ++i)
    out += fmt::format(" {} {:#x}@{:#x}", kSegNames[i], s.seg[i].selector, s.seg[i].base);
  out += fmt::format("; cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x} idt {:#x}", s.cr0, s.cr2, s.cr3, s.cr4,
                     s.efer, s.idtr.base);
  if (cpu_.lapic->waiting_for_sipi())
    out += "; waits for a start-up message";
  else if (s.halted)
    out += "; halted";
  return out;
}

}  // namespace bulkhead::engine::dbt
