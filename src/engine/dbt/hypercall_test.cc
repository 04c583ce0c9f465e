// What guest ABIs need of the engine: hypercalls with their registers, memory by linear address, interrupts past the
// LAPIC, pages that appear in the guest's map.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/dbt/dbt_engine.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kCode = 0x1000, kExtraAt = 0x140000;

class HypercallGuest : public testing::TestWithParam<const char*> {
 protected:
  // 64-bit code at 0x1000 under identity paging of the first 2 MiB; RAM is the first of them.
  void start(const std::vector<u8>& code) {
    auto model = make_cpu_model("host", 1);
    ASSERT_TRUE(model);
    model->vcpu_number_leaf = 0x40000004;
    model->leaves.insert(std::ranges::partition_point(model->leaves, [](const auto& l) { return l.leaf < 0x40000004; }),
                         {0x40000004, 0, 8, 77, 0, 0});
    auto partition =
        make_dbt_engine()->create({.vcpus = 1, .cpu_model = *model, .options = {{"dbt.mode", GetParam()}}}, memory);
    ASSERT_TRUE(partition) << partition.error().message;
    partition_ = std::move(*partition);
    ASSERT_TRUE(memory.write(Gpa{kCode}, std::as_bytes(std::span{code})));
    ASSERT_TRUE(memory.store(Gpa{0x10000}, u64{0x11003}) && memory.store(Gpa{0x11000}, u64{0x12003}) &&
                memory.store(Gpa{0x12000}, u64{0x83}));
    VcpuState state = vcpu().state();
    state.rip = kCode;
    state.cr0 = 0x80000031, state.cr3 = 0x10000, state.cr4 = 0x620, state.efer = 0xd00;
    state.segments[1] = {8, 0, 0xffffffff, 0x9b | 1u << 9 | 1u << 11};
    for (const unsigned i : {0u, 2u, 3u, 4u, 5u}) state.segments[i] = {16, 0, 0xffffffff, 0x93 | 1u << 10 | 1u << 11};
    state.gpr = {17, 0, 3, 0x0b, 0x7000, 0, 2, 1, 5, 6, 4, 0, 0, 0, 0, 0};
    ASSERT_TRUE(vcpu().set_state(state));
  }
  Vcpu& vcpu() { return partition_->vcpu(0); }
  template <class T>
  T& run_to() {
    Exit& exit = vcpu().run();
    if (T* const wanted = std::get_if<T>(&exit)) return *wanted;
    ADD_FAILURE() << exit_name(exit) << ": " << vcpu().describe();
    static T nothing;
    return nothing;
  }
  std::vector<std::byte> bytes(std::size_t n, u8 value = 0) { return std::vector<std::byte>(n, std::byte{value}); }

  GuestMemory memory = std::move(*GuestMemory::create({RamRange{Gpa{0}, 1_MiB}}, 1));
  std::unique_ptr<Partition> partition_;
};

INSTANTIATE_TEST_SUITE_P(Modes, HypercallGuest, testing::Values("interpreter", "translator"));

TEST_P(HypercallGuest, CarriesItsRegistersAndTakesItsResult) {
  for (const u8 kind : {u8{0xc1}, u8{0xd9}}) {  // vmcall, vmmcall
    start({0x0f, 0x01, kind, 0x0f, 0x01, kind, 0xfa, 0xf4});
    auto& call = run_to<HypercallExit>();
    EXPECT_EQ(call.number, 17u);
    EXPECT_EQ(call.args, (std::array<u64, 6>{1, 2, 3, 4, 5, 6}));
    EXPECT_TRUE(call.long_mode);
    EXPECT_EQ(static_cast<i64>(call.result), -38);  // unless somebody knows better
    call.result = 0x123456789abc;
    auto& second = run_to<HypercallExit>();
    EXPECT_EQ(second.number, 0x123456789abcu);
    run_to<HaltExit>();
    const auto gpr = vcpu().state().gpr;
    EXPECT_EQ(static_cast<i64>(gpr[0]), -38);
    EXPECT_EQ(gpr[3], 0x0bu);
    EXPECT_EQ(gpr[7], 1u);
  }
}

TEST_P(HypercallGuest, OtherCodeHasOtherRegisters) {
  start({0x0f, 0x01, 0xc1, 0xfa, 0xf4});
  VcpuState state = vcpu().state();
  state.cr0 = 0x31, state.efer = 0, state.cr4 = 0x600;  // 32-bit, no paging
  state.segments[1].attributes = 0x9b | 1u << 10 | 1u << 11;
  state.gpr = {17, 2, 3, 1, 0x7000, 6, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0};
  ASSERT_TRUE(vcpu().set_state(state));
  auto& call = run_to<HypercallExit>();
  EXPECT_FALSE(call.long_mode);
  EXPECT_EQ(call.args, (std::array<u64, 6>{1, 2, 3, 4, 5, 6}));
  run_to<HaltExit>();
  EXPECT_EQ(vcpu().state().gpr[0], 0xffffffdau);
}

TEST_P(HypercallGuest, MemoryByLinearAddress) {
  start({0x0f, 0x01, 0xc1, 0xfa, 0xf4});
  run_to<HypercallExit>();
  auto data = bytes(5000, 0x5a);
  EXPECT_TRUE(vcpu().write_virtual(Gva{0x8f00}, data));
  EXPECT_EQ(memory.load<u8>(Gpa{0x8f00 + 4999}), 0x5a);
  auto back = bytes(5000);
  EXPECT_TRUE(vcpu().read_virtual(Gva{0x8f00}, back));
  EXPECT_EQ(back, data);
  // Unmapped, not canonical, wrapping.
  for (const u64 at : {u64{2_MiB}, u64{2_MiB - 100}, u64{0x0000800000000000}, u64{0x00007ffffffffff0}, ~u64{0} - 10}) {
    EXPECT_FALSE(vcpu().read_virtual(Gva{at}, back)) << at;
    EXPECT_FALSE(vcpu().write_virtual(Gva{at}, data)) << at;
  }
  // Devices' memory: no exit comes of it, and the hypercall is still answered.
  auto few = bytes(8);
  EXPECT_TRUE(vcpu().read_virtual(Gva{0x180000}, few));
  EXPECT_EQ(few, bytes(8, 0xff));
  EXPECT_TRUE(vcpu().write_virtual(Gva{0x180000}, few));
  EXPECT_TRUE(vcpu().read_virtual(Gva{~u64{0}}, {}));
  run_to<HaltExit>();
}

TEST_P(HypercallGuest, CodeWrittenForTheGuestIsTheCodeThatRuns) {
  start({0x0f, 0x01, 0xc1, 0xb0, 0x11, 0xe6, 0x80, 0xeb, 0xf7});  // vmcall; mov al, 0x11; out 0x80, al; jmp back
  run_to<HypercallExit>();
  EXPECT_EQ(run_to<PortExit>().value, 0x11u);
  run_to<HypercallExit>();
  const std::byte patch{0x22};
  EXPECT_TRUE(vcpu().write_virtual(Gva{kCode + 4}, {&patch, 1}));
  EXPECT_EQ(run_to<PortExit>().value, 0x22u);
}

TEST_P(HypercallGuest, DirectInterruptNeedsNoLapicAndNoEoi) {
  start({0x0f, 0x01, 0xc1,  // vmcall
         0xfb, 0x90, 0x90,  // sti; nop; nop
         0xfa, 0xf4});      // cli; hlt
  // IDT entry 0x40 at 0x20400: 64-bit interrupt gate to 0x3000, which says so and returns.
  ASSERT_TRUE(memory.store(Gpa{0x20400}, u64{0x00008e0000083000}) && memory.store(Gpa{0x20408}, u64{0}));
  const std::vector<u8> handler{0xe6, 0x90, 0x48, 0xcf};  // out 0x90, al; iretq
  ASSERT_TRUE(memory.write(Gpa{0x3000}, std::as_bytes(std::span{handler})));
  ASSERT_TRUE(memory.store(Gpa{0x21008}, u64{0x00af9b000000ffff}) &&
              memory.store(Gpa{0x21010}, u64{0x00cf93000000ffff}));
  VcpuState state = vcpu().state();
  state.idtr = {0x20000, 0xfff};
  state.gdtr = {0x21000, 0x1f};
  ASSERT_TRUE(vcpu().set_state(state));
  run_to<HypercallExit>();
  partition_->inject_direct(0, 0x41);
  partition_->inject_direct(0, 0x40);  // replaces the one before
  EXPECT_EQ(run_to<PortExit>().port, 0x90);
  run_to<HaltExit>();  // once, and no other
}

TEST_P(HypercallGuest, ExtraPageAppearsWhileTheGuestRuns) {
  start({0x8b, 0x04, 0x25, 0x00, 0x00, 0x14, 0x00,  // mov eax, [0x140000]
         0x0f, 0x01, 0xc1, 0xeb, 0xf4});            // vmcall; jmp back
  EXPECT_EQ(run_to<MmioExit>().address, Gpa{kExtraAt});
  EXPECT_EQ(run_to<HypercallExit>().number, 0u);
  ASSERT_TRUE(memory.place_extra(0, Gpa{kExtraAt}));
  *reinterpret_cast<u32*>(memory.extra_page(0)) = 77;
  EXPECT_EQ(run_to<HypercallExit>().number, 77u);
}

TEST_P(HypercallGuest, ExtraPageHidesRamUnderTheTlb) {
  start({0x8b, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00,  // mov eax, [0x8000]
         0x0f, 0x01, 0xc1, 0xeb, 0xf4});
  ASSERT_TRUE(memory.store(Gpa{0x8000}, u32{5}));
  EXPECT_EQ(run_to<HypercallExit>().number, 5u);
  *reinterpret_cast<u32*>(memory.extra_page(0)) = 6;
  ASSERT_TRUE(memory.place_extra(0, Gpa{0x8000}));
  EXPECT_EQ(run_to<HypercallExit>().number, 6u);
  memory.remove_extra(0);
  EXPECT_EQ(run_to<HypercallExit>().number, 5u);
}

TEST_P(HypercallGuest, CpuidKnowsTheVcpusNumber) {
  start(
      {0xb8, 0x04, 0x00, 0x00, 0x40, 0x31, 0xc9, 0x0f, 0xa2, 0xfa, 0xf4});  // mov eax, 0x40000004; xor ecx, ecx; cpuid
  run_to<HaltExit>();
  EXPECT_EQ(vcpu().state().gpr[0], 8u);
  EXPECT_EQ(vcpu().state().gpr[3], 0u);
}

}  // namespace
}  // namespace bulkhead::engine::dbt
