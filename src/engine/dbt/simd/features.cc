#include "engine/dbt/simd/features.h"

#include <Zydis/MetaInfo.h>
#include <cpuid.h>

#include <array>

namespace bulkhead::engine::dbt {
namespace {

struct CpuidBit {
  Feature feature;
  u32 leaf, subleaf;
  char reg;
  u8 bit;
};
constexpr CpuidBit kCpuidBits[] = {
    {Feature::kFpu, 1, 0, 'd', 0},
    {Feature::kCmov, 1, 0, 'd', 15},
    {Feature::kMmx, 1, 0, 'd', 23},
    {Feature::kFxsr, 1, 0, 'd', 24},
    {Feature::kSse, 1, 0, 'd', 25},
    {Feature::kSse2, 1, 0, 'd', 26},
    {Feature::kSse3, 1, 0, 'c', 0},
    {Feature::kPclmul, 1, 0, 'c', 1},
    {Feature::kSsse3, 1, 0, 'c', 9},
    {Feature::kFma, 1, 0, 'c', 12},
    {Feature::kSse41, 1, 0, 'c', 19},
    {Feature::kSse42, 1, 0, 'c', 20},
    {Feature::kAes, 1, 0, 'c', 25},
    {Feature::kXsave, 1, 0, 'c', 26},
    {Feature::kAvx, 1, 0, 'c', 28},
    {Feature::kF16c, 1, 0, 'c', 29},
    {Feature::kXsaveopt, 0xd, 1, 'a', 0},
    {Feature::kXsavec, 0xd, 1, 'a', 1},
    {Feature::kXsaves, 0xd, 1, 'a', 3},
    {Feature::kSse4a, 0x80000001, 0, 'c', 6},
    {Feature::kXop, 0x80000001, 0, 'c', 11},
    {Feature::kFma4, 0x80000001, 0, 'c', 16},
    {Feature::k3dNow, 0x80000001, 0, 'd', 31},
    {Feature::kAvx2, 7, 0, 'b', 5},
    {Feature::kAvx512f, 7, 0, 'b', 16},
    {Feature::kAvx512dq, 7, 0, 'b', 17},
    {Feature::kAvx512ifma, 7, 0, 'b', 21},
    {Feature::kAvx512cd, 7, 0, 'b', 28},
    {Feature::kSha, 7, 0, 'b', 29},
    {Feature::kAvx512bw, 7, 0, 'b', 30},
    {Feature::kAvx512vl, 7, 0, 'b', 31},
    {Feature::kAvx512vbmi, 7, 0, 'c', 1},
    {Feature::kAvx512vbmi2, 7, 0, 'c', 6},
    {Feature::kGfni, 7, 0, 'c', 8},
    {Feature::kVaes, 7, 0, 'c', 9},
    {Feature::kVpclmul, 7, 0, 'c', 10},
    {Feature::kAvx512vnni, 7, 0, 'c', 11},
    {Feature::kAvx512bitalg, 7, 0, 'c', 12},
    {Feature::kAvx512popcnt, 7, 0, 'c', 14},
    {Feature::kAvx512vp2, 7, 0, 'd', 8},
    {Feature::kAvx512fp16, 7, 0, 'd', 23},
    {Feature::kAvxVnni, 7, 1, 'a', 4},
    {Feature::kAvx512bf16, 7, 1, 'a', 5},
};

template <class... F>
constexpr u64 all(F... features) {
  return (feature_bit(features) | ... | feature_bit(Feature::kKnown));
}

using Table = std::array<u64, ZYDIS_ISA_SET_MAX_VALUE + 1>;

// The 128- and 256-bit forms of an AVX-512 set need VL as well.
void add_avx512(Table& table, unsigned first_128, Feature own) {
  table[first_128] = table[first_128 + 1] = all(Feature::kAvx512f, Feature::kAvx512vl, own);
  table[first_128 + 2] = all(Feature::kAvx512f, own);
}

Table make_table() {
  using enum Feature;
  Table t;
  t.fill(all(kNever));
  t[ZYDIS_ISA_SET_X87] = all(kFpu);
  t[ZYDIS_ISA_SET_FCMOV] = all(kFpu, kCmov);
  t[ZYDIS_ISA_SET_PPRO] = all(kFpu, kCmov);  // FCOMI and its family
  t[ZYDIS_ISA_SET_SSE3X87] = all(kFpu, kSse3);
  t[ZYDIS_ISA_SET_PENTIUMMMX] = all(kMmx);
  t[ZYDIS_ISA_SET_AMD3DNOW] = all(k3dNow);
  t[ZYDIS_ISA_SET_FXSAVE] = t[ZYDIS_ISA_SET_FXSAVE64] = all(kFxsr);
  t[ZYDIS_ISA_SET_SSE] = t[ZYDIS_ISA_SET_SSEMXCSR] = all(kSse);
  t[ZYDIS_ISA_SET_SSE2] = t[ZYDIS_ISA_SET_SSE2MMX] = all(kSse2);
  t[ZYDIS_ISA_SET_SSE3] = all(kSse3);
  t[ZYDIS_ISA_SET_SSSE3] = t[ZYDIS_ISA_SET_SSSE3MMX] = all(kSsse3);
  t[ZYDIS_ISA_SET_SSE4] = all(kSse41);
  t[ZYDIS_ISA_SET_SSE42] = all(kSse42);
  t[ZYDIS_ISA_SET_SSE4A] = all(kSse4a);
  t[ZYDIS_ISA_SET_AES] = all(kAes);
  t[ZYDIS_ISA_SET_PCLMULQDQ] = all(kPclmul);
  t[ZYDIS_ISA_SET_SHA] = all(kSha);
  t[ZYDIS_ISA_SET_GFNI] = all(kGfni);
  t[ZYDIS_ISA_SET_XSAVE] = all(kXsave);
  t[ZYDIS_ISA_SET_XSAVEOPT] = all(kXsaveopt);
  t[ZYDIS_ISA_SET_XSAVEC] = all(kXsavec);
  t[ZYDIS_ISA_SET_XSAVES] = all(kXsaves);
  t[ZYDIS_ISA_SET_AVX] = all(kAvx);
  t[ZYDIS_ISA_SET_AVX2] = t[ZYDIS_ISA_SET_AVX2GATHER] = all(kAvx2);
  t[ZYDIS_ISA_SET_AVXAES] = all(kAvx, kAes);
  t[ZYDIS_ISA_SET_AVX_GFNI] = all(kAvx, kGfni);
  t[ZYDIS_ISA_SET_AVX_VNNI] = all(kAvxVnni);
  t[ZYDIS_ISA_SET_VAES] = all(kAvx, kVaes);
  t[ZYDIS_ISA_SET_VPCLMULQDQ] = all(kAvx, kVpclmul);
  t[ZYDIS_ISA_SET_F16C] = all(kF16c);
  t[ZYDIS_ISA_SET_FMA] = all(kFma);
  t[ZYDIS_ISA_SET_FMA4] = all(kFma4);
  t[ZYDIS_ISA_SET_XOP] = all(kXop);

  t[ZYDIS_ISA_SET_AVX512F_128] = t[ZYDIS_ISA_SET_AVX512F_256] = all(kAvx512f, kAvx512vl);
  t[ZYDIS_ISA_SET_AVX512F_128N] = t[ZYDIS_ISA_SET_AVX512F_512] = t[ZYDIS_ISA_SET_AVX512F_KOP] =
      t[ZYDIS_ISA_SET_AVX512F_SCALAR] = all(kAvx512f);
  t[ZYDIS_ISA_SET_AVX512BW_128] = t[ZYDIS_ISA_SET_AVX512BW_256] = all(kAvx512f, kAvx512vl, kAvx512bw);
  t[ZYDIS_ISA_SET_AVX512BW_128N] = t[ZYDIS_ISA_SET_AVX512BW_512] = t[ZYDIS_ISA_SET_AVX512BW_KOP] =
      all(kAvx512f, kAvx512bw);
  t[ZYDIS_ISA_SET_AVX512DQ_128] = t[ZYDIS_ISA_SET_AVX512DQ_256] = all(kAvx512f, kAvx512vl, kAvx512dq);
  t[ZYDIS_ISA_SET_AVX512DQ_128N] = t[ZYDIS_ISA_SET_AVX512DQ_512] = t[ZYDIS_ISA_SET_AVX512DQ_KOP] =
      t[ZYDIS_ISA_SET_AVX512DQ_SCALAR] = all(kAvx512f, kAvx512dq);
  t[ZYDIS_ISA_SET_AVX512_FP16_128] = t[ZYDIS_ISA_SET_AVX512_FP16_256] = all(kAvx512fp16, kAvx512vl);
  t[ZYDIS_ISA_SET_AVX512_FP16_128N] = t[ZYDIS_ISA_SET_AVX512_FP16_512] = t[ZYDIS_ISA_SET_AVX512_FP16_SCALAR] =
      all(kAvx512fp16);
  add_avx512(t, ZYDIS_ISA_SET_AVX512CD_128, kAvx512cd);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_BF16_128, kAvx512bf16);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_BITALG_128, kAvx512bitalg);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_GFNI_128, kGfni);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_IFMA_128, kAvx512ifma);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_VAES_128, kVaes);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_VBMI2_128, kAvx512vbmi2);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_VBMI_128, kAvx512vbmi);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_VNNI_128, kAvx512vnni);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128, kAvx512vp2);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_VPCLMULQDQ_128, kVpclmul);
  add_avx512(t, ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_128, kAvx512popcnt);
  return t;
}

}  // namespace

u64 features_of_isa(unsigned isa_set) {
  static const Table table = make_table();
  return isa_set < table.size() ? table[isa_set] : all(Feature::kNever);
}

u64 features_of_model(const CpuModel& model) {
  u64 features = all();
  for (const CpuidBit& entry : kCpuidBits)
    if (model.has(entry.leaf, entry.subleaf, entry.reg, entry.bit)) features |= feature_bit(entry.feature);
  return features;
}

u64 features_of_host() {
  u64 features = all();
  for (const CpuidBit& entry : kCpuidBits) {
    u32 a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(entry.leaf, entry.subleaf, &a, &b, &c, &d)) continue;
    const u32 value = entry.reg == 'a' ? a : entry.reg == 'b' ? b : entry.reg == 'c' ? c : d;
    if ((value >> entry.bit) & 1) features |= feature_bit(entry.feature);
  }
  return features;
}

}  // namespace bulkhead::engine::dbt
