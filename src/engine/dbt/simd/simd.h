// x87, MMX, SSE to AVX-512 and the XSAVE family: executed by the host's own units on the guest's state, with registers
// and memory operands redirected. May use host vector registers: spills the guest's first.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

// True for instructions that execute_simd() does.
bool is_simd(const Insn& insn);

// Executes one such instruction at s.rip. Raises #UD/#NM/#GP/#PF/#MF/#XM as the CPU would. Advances RIP.
StepResult execute_simd(Cpu& cpu, const Insn& insn);

// The #UD/#NM checks for CR0.EM/TS/MP, CR4.OSFXSR/OSXSAVE, XCR0 and the CPU model; raises or returns.
void check_simd_enabled(Cpu& cpu, const Insn& insn);

// Size of the guest's XSAVE area for XCR0 (CPUID 0xD).
u32 xsave_area_size(u64 xcr0);

}  // namespace bulkhead::engine::dbt
