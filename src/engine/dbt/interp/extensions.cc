#include "engine/dbt/interp/extensions.h"

#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {
namespace {

struct CpuidBit {
  u32 leaf;
  u32 subleaf;
  char reg;
  u8 bit;
};
// In the order of Extension [SDM-2A CPUID], [APM-3 Appendix E].
constexpr CpuidBit kBits[] = {
    {1, 0, 'c', 23},           // POPCNT
    {0x80000001, 0, 'c', 5},   // LZCNT
    {7, 0, 'b', 3},            // BMI1
    {7, 0, 'b', 8},            // BMI2
    {7, 0, 'b', 19},           // ADX
    {1, 0, 'c', 22},           // MOVBE
    {1, 0, 'c', 20},           // CRC32, with SSE4.2
    {1, 0, 'c', 30},           // RDRAND
    {7, 0, 'b', 18},           // RDSEED
    {7, 0, 'c', 22},           // RDPID
    {0x80000001, 0, 'd', 27},  // RDTSCP
    {1, 0, 'c', 13},           // CMPXCHG16B
    {7, 0, 'b', 10},           // INVPCID
    {7, 0, 'b', 20},           // SMAP
    {1, 0, 'd', 19},           // CLFLUSH
    {7, 0, 'b', 23},           // CLFLUSHOPT
    {7, 0, 'b', 24},           // CLWB
    {7, 0, 'c', 27},           // MOVDIRI
    {7, 0, 'c', 28},           // MOVDIR64B
    {7, 0, 'd', 14},           // SERIALIZE
    {1, 0, 'c', 3},            // MONITOR
    {0x80000008, 0, 'b', 9},   // WBNOINVD
    {0xd, 1, 'a', 2},          // XGETBV with ECX=1
    {1, 0, 'd', 11},           // SYSENTER
    {0x80000008, 0, 'b', 0},   // CLZERO
    {0x80000001, 0, 'c', 29},  // MONITORX
    {0x80000008, 0, 'b', 4},   // RDPRU
    {0x80000001, 0, 'c', 8},   // PREFETCHW
    {0x80000001, 0, 'c', 0},   // LAHF/SAHF in 64-bit mode
    {7, 0, 'c', 5},            // WAITPKG
};
static_assert(std::size(kBits) == static_cast<unsigned>(Extension::kCount));
constexpr u64 kKnown = u64{1} << 63;

u64 collect(const CpuModel& model) {
  u64 extensions = kKnown;
  for (unsigned i = 0; i < std::size(kBits); ++i) {
    const CpuidBit& b = kBits[i];
    if (model.has(b.leaf, b.subleaf, b.reg, b.bit)) extensions |= u64{1} << i;
  }
  return extensions;
}

}  // namespace

bool has_extension(Cpu& cpu, Extension extension) {
  if (cpu.interp_extensions == 0) [[unlikely]] {
    cpu.spill_fpu();
    cpu.interp_extensions = collect(cpu.shared.cpu_model);
  }
  return (cpu.interp_extensions >> static_cast<unsigned>(extension)) & 1;
}

}  // namespace bulkhead::engine::dbt
