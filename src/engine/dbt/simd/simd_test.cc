// What random user-mode cases (tests/insn) cannot reach: enabling bits, other modes, the XSAVE family's refusals, the
// live state.
#include "engine/dbt/simd/simd.h"

#include <Zydis/MetaInfo.h>
#include <xmmintrin.h>

#include <fstream>
#include <string>

#include "engine/dbt/simd/features.h"
#include "engine/dbt/simd/xstate.h"
#include "support/cpu_fixture.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kEm = 4, kTs = 8, kMp = 2;
constexpr u64 kOsfxsr = 1u << 9, kOsxmmexcpt = 1u << 10, kOsxsave = 1u << 18;
constexpr u64 kAreaAt = CpuFixture::kData;

const std::vector<u8> kFadd = {0xd8, 0xc1}, kPaddb = {0x66, 0x0f, 0xfc, 0xc1}, kPaddbMmx = {0x0f, 0xfc, 0xc1},
                      kVpaddb = {0xc5, 0xf1, 0xfc, 0xc1}, kFwait = {0x9b}, kXsave = {0x0f, 0xae, 0x20},
                      kXrstor = {0x0f, 0xae, 0x28}, kXsavec = {0x0f, 0xc7, 0x20};

class Simd : public testing::Test {
 protected:
  std::optional<unsigned> fault_of(std::span<const u8> code) {
    guest.run(code);
    return guest.fault_vector();
  }
  XsaveView view() { return XsaveView{guest.s().xsave.data()}; }
  void set_xmm(unsigned n, u64 low, u64 high = 0) {
    const u64 value[2] = {low, high};
    view().write_vector(n, value, 16);
  }
  u64 xmm(unsigned n) {
    u64 value;
    view().read_vector(n, &value, 8);
    return value;
  }
  CpuFixture guest;
};

TEST_F(Simd, TaskSwitchedIsNoDevice) {
  for (const auto& code : {kFadd, kPaddb, kPaddbMmx, kVpaddb, kXsave}) {
    CpuFixture fresh;
    fresh.s().cr0 |= kTs;
    fresh.run(code);
    EXPECT_EQ(fresh.fault_vector(), kNm);
  }
}

TEST_F(Simd, EmulationIsNoDeviceForX87AndUndefinedForTheRest) {
  guest.s().cr0 |= kEm;
  EXPECT_EQ(fault_of(kFadd), kNm);
  for (const auto& code : {kPaddb, kPaddbMmx}) {
    CpuFixture fresh;
    fresh.s().cr0 |= kEm;
    fresh.run(code);
    EXPECT_EQ(fresh.fault_vector(), kUd);
  }
}

TEST_F(Simd, WaitLooksAtMpAndTs) {
  guest.s().cr0 = (guest.s().cr0 & ~kMp) | kTs;
  EXPECT_EQ(fault_of(kFwait), std::nullopt);
  guest.s().cr0 |= kMp;
  EXPECT_EQ(fault_of(kFwait), kNm);
}

TEST_F(Simd, SseWantsOsfxsr) {
  guest.s().cr4 &= ~kOsfxsr;
  EXPECT_EQ(fault_of(kPaddb), kUd);
}

TEST_F(Simd, MmxDoesNotWantOsfxsr) {
  guest.s().cr4 &= ~kOsfxsr;
  EXPECT_EQ(fault_of(kPaddbMmx), std::nullopt);
}

TEST_F(Simd, AvxWantsOsxsave) {
  guest.s().cr4 &= ~kOsxsave;
  EXPECT_EQ(fault_of(kVpaddb), kUd);
}

TEST_F(Simd, AvxWantsItsComponents) {
  guest.s().xcr0 = 3;
  EXPECT_EQ(fault_of(kVpaddb), kUd);
}

TEST_F(Simd, Avx512WantsItsComponents) {
  guest.s().xcr0 = 7;
  EXPECT_EQ(fault_of({{0x62, 0xf1, 0x75, 0x48, 0xfe, 0xc1}}), kUd);  // vpaddd zmm0,zmm1,zmm1
}

TEST_F(Simd, NumericExceptionWithoutOsxmmexcptIsUndefined) {
  for (const bool enabled : {true, false}) {
    CpuFixture fresh;
    if (!enabled) fresh.s().cr4 &= ~kOsxmmexcpt;
    XsaveView state{fresh.s().xsave.data()};
    state.set_mxcsr(0x1f80 & ~0x80u);  // invalid operation unmasked
    const u64 signalling = 0x7fa00001;
    state.write_vector(1, &signalling, 8);
    fresh.run({0xf3, 0x0f, 0x58, 0xc1});  // addss xmm0,xmm1
    EXPECT_EQ(fresh.fault_vector(), enabled ? kXm : kUd);
  }
}

TEST_F(Simd, ProtectedModeUsesItsRegistersAndSegments) {
  guest.protected_mode();
  guest.s().gpr[kRcx] = 5;
  guest.s().seg[kDs].base = 0x100;
  guest.poke<u32>(CpuFixture::kData + 0x100, 7);
  guest.s().cr4 |= kOsfxsr;
  guest.run({0xf2, 0x0f, 0x2a, 0xc1});  // cvtsi2sd xmm0,ecx
  EXPECT_EQ(xmm(0), 0x4014000000000000u);
  guest.s().gpr[kRbx] = CpuFixture::kData;
  guest.run({0x66, 0x0f, 0x6e, 0x0b});  // movd xmm1,[ebx]
  EXPECT_EQ(xmm(1), 7u);
  guest.run({0x66, 0x0f, 0x7e, 0xcc});  // movd esp,xmm1
  EXPECT_EQ(guest.s().gpr[kRsp], 7u);
}

TEST_F(Simd, RealModeX87) {
  guest.real_mode();
  guest.run({0xdb, 0xe3});              // fninit
  guest.run({0xd9, 0x3e, 0x00, 0x02});  // fnstcw [0x200]
  EXPECT_EQ(guest.peek<u16>(0x50200), 0x37f);
  guest.run({0xd9, 0xe8});              // fld1
  guest.run({0xd9, 0x36, 0x00, 0x03});  // fnstenv [0x300]: 14 bytes
  EXPECT_EQ(guest.peek<u16>(0x50300), 0x37f);
  EXPECT_EQ(guest.peek<u16>(0x50302), 0x3800);
  EXPECT_EQ(guest.peek<u16>(0x50304), 0x3fff);
  EXPECT_EQ(guest.peek<u16>(0x5030e), 0);
}

TEST_F(Simd, VectorInstructionsDoNotExistInRealMode) {
  guest.real_mode();
  guest.s().cr4 |= kOsxsave;
  EXPECT_EQ(fault_of(kVpaddb), kUd);
}

TEST_F(Simd, HostAddressesStayHidden) {
  guest.s().gpr[kRax] = CpuFixture::kData;
  guest.poke<u64>(CpuFixture::kData, 0x7ff4000000000001);  // a signalling NaN
  guest.run({0xdb, 0xe3});                                 // fninit
  guest.poke<u16>(CpuFixture::kData + 8, 0x37e);
  guest.run({0xd9, 0x68, 0x08});  // fldcw [rax+8]: invalid unmasked
  const u64 rip = guest.s().rip;
  guest.run({0xdd, 0x00});        // fld qword [rax]
  guest.run({0xd9, 0x70, 0x40});  // fnstenv [rax+64]
  const u32 fip = guest.peek<u32>(CpuFixture::kData + 64 + 12), fdp = guest.peek<u32>(CpuFixture::kData + 64 + 20);
  EXPECT_TRUE(fip == static_cast<u32>(rip) || fip == 0) << std::hex << fip;
  EXPECT_TRUE(fdp == CpuFixture::kData || fdp == 0) << std::hex << fdp;
}

// ---- XSAVE family

TEST_F(Simd, XsaveAndXrstorKeepTheState) {
  guest.s().xcr0 = 7;
  set_xmm(3, 0x1111, 0x2222);
  view().set_mxcsr(0x3f80);
  guest.s().gpr[kRbx] = kAreaAt;
  guest.s().gpr[kRax] = 7;
  guest.run({0x48, 0x0f, 0xae, 0x23});  // xsave64 [rbx]
  ASSERT_EQ(guest.fault_vector(), std::nullopt);
  EXPECT_EQ(guest.peek<u64>(kAreaAt + 160 + 48), 0x1111u);
  EXPECT_EQ(guest.peek<u32>(kAreaAt + 24), 0x3f80u);
  EXPECT_TRUE(guest.peek<u64>(kAreaAt + 512) & 2);
  set_xmm(3, 0, 0);
  view().set_mxcsr(0x1f80);
  guest.run({0x48, 0x0f, 0xae, 0x2b});  // xrstor64 [rbx]
  ASSERT_EQ(guest.fault_vector(), std::nullopt);
  EXPECT_EQ(xmm(3), 0x1111u);
  EXPECT_EQ(view().mxcsr(), 0x3f80u);
}

TEST_F(Simd, CompactedAreaIsRestored) {
  guest.cpu().simd_features = ~u64{0};
  guest.s().gpr[kRbx] = kAreaAt;
  guest.s().gpr[kRax] = 7;
  guest.s().xss = 0;
  set_xmm(2, 0x77, 0x88);
  view().set_mxcsr(0x5f80);
  guest.run({0x48, 0x0f, 0xc7, 0x2b});  // xsaves64 [rbx]
  ASSERT_EQ(guest.fault_vector(), std::nullopt);
  set_xmm(2, 0);
  view().set_mxcsr(0x1f80);
  guest.run({0x48, 0x0f, 0xc7, 0x1b});  // xrstors64 [rbx]
  ASSERT_EQ(guest.fault_vector(), std::nullopt);
  EXPECT_EQ(xmm(2), 0x77u);
  EXPECT_EQ(view().mxcsr(), 0x5f80u);
  guest.poke<u64>(kAreaAt + 520, 0);
  EXPECT_EQ(fault_of({{0x48, 0x0f, 0xc7, 0x1b}}), kGp);  // XRSTORS takes no other format
}

TEST_F(Simd, SupervisorFormsAreForTheSupervisor) {
  guest.cpu().simd_features = ~u64{0};
  guest.long_mode(3);
  guest.s().gpr[kRbx] = kAreaAt;
  EXPECT_EQ(fault_of({{0x48, 0x0f, 0xc7, 0x2b}}), kGp);
}

TEST_F(Simd, XrstorOfNothingIsTheInitialState) {
  guest.s().gpr[kRbx] = kAreaAt;
  guest.s().gpr[kRax] = 7;
  guest.poke<u32>(kAreaAt + 24, 0x1f80);
  set_xmm(5, 77);
  guest.run({0x0f, 0xae, 0x2b});
  ASSERT_EQ(guest.fault_vector(), std::nullopt);
  EXPECT_EQ(xmm(5), 0u);
}

TEST_F(Simd, XsavecWritesTheCompactedHeader) {
  guest.cpu().simd_features = ~u64{0};  // whatever the CPU model says
  guest.s().gpr[kRbx] = kAreaAt;
  guest.s().gpr[kRax] = 2;
  set_xmm(0, 0xabc);
  guest.run({0x0f, 0xc7, 0x23});
  ASSERT_EQ(guest.fault_vector(), std::nullopt);
  EXPECT_EQ(guest.peek<u64>(kAreaAt + 512), 2u);
  EXPECT_EQ(guest.peek<u64>(kAreaAt + 520), u64{1} << 63 | 2);
  EXPECT_EQ(guest.peek<u64>(kAreaAt + 160), 0xabcu);
}

struct BadArea {
  const char* why;
  u32 offset;
  u64 value;
};
class SimdBadArea : public Simd, public testing::WithParamInterface<BadArea> {};

TEST_P(SimdBadArea, IsRefused) {
  guest.s().gpr[kRbx] = kAreaAt;
  guest.s().gpr[kRax] = 7;
  guest.poke<u32>(kAreaAt + 24, 0x1f80);
  guest.poke<u64>(kAreaAt + GetParam().offset, GetParam().value);
  set_xmm(1, 99);
  EXPECT_EQ(fault_of({{0x0f, 0xae, 0x2b}}), kGp);
  EXPECT_EQ(guest.error_code(), 0u);
  EXPECT_EQ(xmm(1), 99u);
}
INSTANTIATE_TEST_SUITE_P(Simd, SimdBadArea,
                         testing::Values(BadArea{"ComponentNotEnabled", 512, 0x80},
                                         BadArea{"UnknownComponent", 512, u64{1} << 62},
                                         BadArea{"FormatWithoutItsBit", 520, 7}, BadArea{"ReservedHeader", 528, 1},
                                         BadArea{"CompactedButNotEnabled", 520, u64{1} << 63 | 0xe7},
                                         BadArea{"ReservedMxcsr", 24, 0xffff0000}),
                         [](const auto& instance) { return instance.param.why; });

TEST_F(Simd, MisalignedAreaIsRefused) {
  guest.s().gpr[kRbx] = kAreaAt + 32;
  EXPECT_EQ(fault_of({{0x0f, 0xae, 0x23}}), kGp);
}

TEST_F(Simd, XsaveToReadOnlyPageFaultsAndWritesNothing) {
  guest.map(kAreaAt, 5);
  guest.s().gpr[kRbx] = kAreaAt;
  guest.s().gpr[kRax] = 7;
  EXPECT_EQ(fault_of({{0x0f, 0xae, 0x23}}), kPageFault);
  EXPECT_EQ(guest.peek<u64>(kAreaAt + 512), 0u);
}

TEST_F(Simd, FxsaveInProtectedModeKeepsTheUpperRegisters) {
  set_xmm(9, 0x99);
  guest.protected_mode();
  guest.s().cr4 |= kOsfxsr;
  guest.s().gpr[kRbx] = kAreaAt;
  guest.poke<u64>(kAreaAt + 160 + 16 * 9, 0x5555);
  guest.run({0x0f, 0xae, 0x03});  // fxsave [ebx]
  ASSERT_EQ(guest.fault_vector(), std::nullopt);
  EXPECT_EQ(guest.peek<u64>(kAreaAt + 160 + 16 * 9), 0x5555u);
  guest.run({0x0f, 0xae, 0x0b});  // fxrstor [ebx]
  EXPECT_EQ(xmm(9), 0x99u);
}

TEST_F(Simd, LdmxcsrOfReservedBitsIsRefused) {
  guest.s().gpr[kRbx] = CpuFixture::kData;
  guest.poke<u32>(CpuFixture::kData, 0x80000000);
  EXPECT_EQ(fault_of({{0x0f, 0xae, 0x13}}), kGp);
}

// ---- the live state

TEST_F(Simd, FillAndSpillKeepTheState) {
  set_xmm(0, 0x1234, 0x5678);
  view().set_mxcsr(0x5f80);
  guest.cpu().fill_fpu();
  EXPECT_TRUE(guest.s().fpu_live);
  guest.cpu().fill_fpu();  // nothing to do
  guest.cpu().spill_fpu();
  guest.cpu().spill_fpu();
  EXPECT_FALSE(guest.s().fpu_live);
  EXPECT_EQ(xmm(0), 0x1234u);
  EXPECT_EQ(view().mxcsr(), 0x5f80u);
  EXPECT_EQ(_mm_getcsr() & 0xffc0, 0x1f80u);
}

TEST_F(Simd, LiveStateIsSeenByTheNextInstruction) {
  set_xmm(0, 1);
  set_xmm(1, 2);
  guest.put(guest.s().rip, kPaddb);
  guest.cpu().fill_fpu();
  step(guest.cpu());
  EXPECT_FALSE(guest.s().fpu_live);
  EXPECT_EQ(xmm(0), 3u);
}

TEST_F(Simd, SnapshotsAreMadeSafe) {
  view().set_mxcsr(0xffffffff);
  view().set_xstate_bv(~u64{0});
  guest.s().xsave[520] = std::byte{0xff};
  sanitize_xsave(guest.s());
  guest.cpu().fill_fpu();
  guest.cpu().spill_fpu();
  EXPECT_EQ(view().mxcsr() & ~host_xstate().mxcsr_mask, 0u);
}

// The stubs are made while the guest runs, so this holds only if they are written elsewhere than executed.
TEST_F(Simd, NothingIsWritableAndExecutableAtOnce) {
  EXPECT_EQ(fault_of(kPaddb), std::nullopt);
  std::ifstream maps{"/proc/self/maps"};
  for (std::string line; std::getline(maps, line);) EXPECT_FALSE(line.contains(" rwx")) << line;
}

TEST(SimdFeatures, NothingUnknownIsOffered) {
  EXPECT_TRUE(features_of_isa(ZYDIS_ISA_SET_AMX_TILE) & feature_bit(Feature::kNever));
  EXPECT_TRUE(features_of_isa(100000) & feature_bit(Feature::kNever));
  EXPECT_FALSE(features_of_host() & feature_bit(Feature::kNever));
}

TEST(SimdFeatures, EmptyModelHasNothing) {
  EXPECT_EQ(features_of_model(CpuModel{}), feature_bit(Feature::kKnown));
  EXPECT_NE(features_of_isa(ZYDIS_ISA_SET_SSE2) & ~features_of_model(CpuModel{}), 0u);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
