// Which CPUID features an instruction needs, and which of them a guest's CPU model has.
#pragma once
#include "engine/cpu_model.h"

namespace bulkhead::engine::dbt {

// One bit each; see features.cc for the CPUID bit behind it.
enum class Feature : u8 {
  kKnown,  // always set, so that a looked-up set is never 0
  kNever,  // never set: what no guest of ours gets
  kFpu,
  kCmov,
  kMmx,
  kFxsr,
  kSse,
  kSse2,
  kSse3,
  kSsse3,
  kSse41,
  kSse42,
  kSse4a,
  kAes,
  kPclmul,
  kXsave,
  kXsaveopt,
  kXsavec,
  kXsaves,
  kAvx,
  kF16c,
  kFma,
  kFma4,
  kXop,
  k3dNow,
  kAvx2,
  kSha,
  kGfni,
  kVaes,
  kVpclmul,
  kAvxVnni,
  kAvx512f,
  kAvx512dq,
  kAvx512ifma,
  kAvx512cd,
  kAvx512bw,
  kAvx512vl,
  kAvx512vbmi,
  kAvx512vbmi2,
  kAvx512vnni,
  kAvx512bitalg,
  kAvx512popcnt,
  kAvx512vp2,
  kAvx512bf16,
  kAvx512fp16
};
constexpr u64 feature_bit(Feature feature) { return u64{1} << static_cast<u8>(feature); }

// All that an instruction of this ZydisISASet needs.
u64 features_of_isa(unsigned isa_set);
u64 features_of_model(const CpuModel& model);
u64 features_of_host();  // by CPUID

}  // namespace bulkhead::engine::dbt
