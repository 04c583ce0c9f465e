// Which optional instructions the vCPU's CPU model has. Those that it lacks are #UD, or what older processors made of
// the bytes.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

enum class Extension : u8 {
  kPopcnt,
  kLzcnt,
  kBmi1,
  kBmi2,
  kAdx,
  kMovbe,
  kCrc32,
  kRdrand,
  kRdseed,
  kRdpid,
  kRdtscp,
  kCmpxchg16b,
  kInvpcid,
  kSmap,
  kClflush,
  kClflushOpt,
  kClwb,
  kMovdiri,
  kMovdir64b,
  kSerialize,
  kMonitor,
  kWbnoinvd,
  kXgetbv1,
  kSysenter,
  kClzero,
  kMonitorx,
  kRdpru,
  kPrefetchW,
  kLahf64,
  kWaitpkg,
  kCount
};

bool has_extension(Cpu& cpu, Extension extension);
inline void require_extension(Cpu& cpu, Extension extension) {
  if (!has_extension(cpu, extension)) cpu.raise(kUd);
}
// VEX-encoded integer instructions also do not exist in real and virtual-8086 mode.
inline void require_vex_extension(Cpu& cpu, Extension extension) {
  require_extension(cpu, extension);
  if (!cpu.protected_mode() || cpu.v8086()) cpu.raise(kUd);
}

}  // namespace bulkhead::engine::dbt
