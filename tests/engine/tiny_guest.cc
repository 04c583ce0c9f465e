#include "tests/engine/tiny_guest.h"

#include <cstring>

namespace bulkhead::engine {
namespace {

GuestMemory make_memory() {
  auto memory = GuestMemory::create({RamRange{Gpa{0}, kRamSize}});
  EXPECT_TRUE(memory.has_value());
  return std::move(*memory);
}

constexpr u16 kCode64Attributes = 0xa9b, kDataAttributes = 0xc93, kCode32Attributes = 0xc9b;

}  // namespace

TinyGuest::TinyGuest(const EngineUnderTest& engine, unsigned vcpus, ParavirtAbi abi)
    : memory_{make_memory()}, engine_{engine.make()}, vcpus_{vcpus}, abi_{abi} {
  if (const std::string why = prepare(engine); !why.empty()) [&] { GTEST_SKIP() << engine.name << ": " << why; }();
}

std::string TinyGuest::prepare(const EngineUnderTest& engine) {
  const Probe probe = engine_->probe();
  if (!probe.usable) return probe.reason;
  if (probe.capabilities.max_vcpus < vcpus_) return "too few vCPUs";
  auto model = make_cpu_model("host", vcpus_);
  if (!model) return model.error().message;
  auto partition =
      engine_->create({.vcpus = vcpus_, .abi = abi_, .cpu_model = *model, .options = engine.options}, memory_);
  if (!partition) {
    ADD_FAILURE() << partition.error().message;
    return {};
  }
  partition_ = std::move(*partition);
  build_tables();
  watchdog_ = std::thread{[this] { watch(); }};
  return {};
}

TinyGuest::~TinyGuest() {
  stop_threads();
  {
    const std::lock_guard lock{mutex_};
    finished_ = true;
  }
  done_.notify_all();
  if (watchdog_.joinable()) watchdog_.join();
}

void TinyGuest::watch() {
  std::unique_lock lock{mutex_};
  if (done_.wait_for(lock, kPatience, [this] { return finished_; })) return;
  expired_ = true;
  for (unsigned i = 0; i < vcpus_; ++i) vcpu(i).kick();
}

void TinyGuest::build_tables() {
  auto* tables = reinterpret_cast<u64*>(host(kTablesAt));
  const auto table = [&](unsigned page) { return tables + 512 * page; };
  table(0)[0] = (kTablesAt + 0x1000) | 7;
  for (u64 gib = 0; gib < 4; ++gib) {
    table(1)[gib] = (kTablesAt + 0x2000 + 0x1000 * gib) | 7;
    for (u64 i = 0; i < 512; ++i) table(2 + static_cast<unsigned>(gib))[i] = (gib << 30 | i << 21) | 0x87;
  }
  table(2)[kSmallPages >> 21] = (kTablesAt + 0x6000) | 7;
  for (u64 i = 0; i < 512; ++i) table(6)[i] = (kSmallPages + (i << 12)) | 7;
  const u64 gdt[] = {0,
                     0x00209b0000000000,
                     0x00cf93000000ffff,
                     0x00cff3000000ffff,
                     0x0020fb0000000000,
                     0x00cf9b000000ffff,
                     (u64{kTssAt & 0xffff} << 16) | 0x0000890000000067,
                     0};
  std::memcpy(host(kGdtAt), gdt, sizeof gdt);
  std::memcpy(host(kTssAt) + 4, &kStackTop, 8);
}

void TinyGuest::set_gate(u8 vector, u64 handler, unsigned dpl) {
  const u64 gate[2] = {
      (handler & 0xffff) | u64{kKernelCode} << 16 | u64{0x8e00 | dpl << 13} << 32 | (handler >> 16 & 0xffff) << 48,
      handler >> 32};
  std::memcpy(host(kIdtAt + 16 * vector), gate, 16);
}

void TinyGuest::set_small_page(u64 linear, u64 entry) {
  reinterpret_cast<u64*>(host(kTablesAt + 0x6000))[(linear - kSmallPages) >> 12] = entry;
}

void TinyGuest::enter_long_mode(unsigned index, u64 rip) {
  VcpuState state = vcpu(index).state();
  state.gpr = {};
  state.gpr[4] = index == 0 ? kStackTop : kStack2Top;
  state.rip = rip;
  state.rflags = 2;
  state.cr0 = 0x80010033;
  state.cr3 = kTablesAt;
  state.cr4 = 1u << 5 | 1u << 9 | 1u << 10;
  state.efer = 0xd01;
  for (SegmentState& segment : state.segments) segment = {kKernelData, 0, 0xffffffff, kDataAttributes};
  state.segments[1] = {kKernelCode, 0, 0xffffffff, kCode64Attributes};
  state.tr = {kTss, kTssAt, 0x67, 0x8b};
  state.ldtr = {0, 0, 0, kSegmentUnusable};
  state.gdtr = {kGdtAt, 63};
  state.idtr = {kIdtAt, 4095};
  state.mp_state = MpState::kRunnable;
  const auto result = vcpu(index).set_state(state);
  ASSERT_TRUE(result) << result.error().message;
}

void TinyGuest::real_mode(std::initializer_list<u8> code, u64 at) {
  std::copy(code.begin(), code.end(), host(at));
  VcpuState state = vcpu().state();
  state.rip = at & 0xf;
  for (SegmentState& segment : state.segments) segment = {0, 0, 0xffff, 0x93};
  state.segments[1] = {static_cast<u16>(at >> 4), at & ~u64{0xf}, 0xffff, 0x9b};
  state.gpr[4] = 0x7000;
  state.rflags = 2;
  state.idtr = {0, 0x3ff};
  const auto result = vcpu().set_state(state);
  ASSERT_TRUE(result) << result.error().message;
}

void TinyGuest::protected_mode(std::initializer_list<u8> code, u64 at) {
  std::copy(code.begin(), code.end(), host(at));
  VcpuState state = vcpu().state();
  state.gpr = {};
  state.gpr[4] = kStackTop;
  state.rip = at;
  state.rflags = 2;
  state.cr0 = 0x31;
  for (SegmentState& segment : state.segments) segment = {kKernelData, 0, 0xffffffff, kDataAttributes};
  state.segments[1] = {kCode32, 0, 0xffffffff, kCode32Attributes};
  state.gdtr = {kGdtAt, 63};
  state.idtr = {kIdtAt, 2047};
  const auto result = vcpu().set_state(state);
  ASSERT_TRUE(result) << result.error().message;
}

Exit& TinyGuest::run(unsigned index) {
  for (;;) {
    Exit& exit = vcpu(index).run();
    if (!std::holds_alternative<KickedExit>(exit)) return exit;
    if (expired_) {
      ADD_FAILURE() << "the guest does not end: " << vcpu(index).describe();
      return exit;
    }
    if (stop_) return exit;
  }
}

void TinyGuest::unexpected(const Exit& exit, unsigned index) {
  std::string detail;
  if (const auto* failure = std::get_if<FailureExit>(&exit)) detail = failure->reason;
  ADD_FAILURE() << "unexpected exit " << exit_name(exit) << " " << detail << "\n" << vcpu(index).describe();
}

u64 TinyGuest::report(unsigned index) {
  const PortExit& exit = expect<PortExit>(index);
  EXPECT_EQ(exit.port, kReportPort);
  EXPECT_TRUE(exit.write);
  return exit.value;
}

void TinyGuest::start_thread(unsigned index) {
  threads_.emplace_back([this, index] {
    while (!stop_ && !expired_) {
      Exit& exit = vcpu(index).run();
      if (std::holds_alternative<KickedExit>(exit)) continue;
      if (const auto* port = std::get_if<PortExit>(&exit); port && port->port == kReportPort) continue;
      if (!std::holds_alternative<HaltExit>(exit)) unexpected(exit, index);
      return;
    }
  });
}

void TinyGuest::stop_threads() {
  stop_ = true;
  for (unsigned i = 0; partition_ && i < vcpus_; ++i) vcpu(i).kick();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  stop_ = false;
}

void emit_iret(Code& code) { code.db(0xcf48, 2); }
void emit_read_cr(Code& code, u8 number) { code.db(0xc0200f | static_cast<u32>(number) << 19, 3); }
void emit_write_cr3(Code& code) { code.db(0xd8220f, 3); }

void emit_report(Code& code) {
  code.mov(code.edx, kReportPort);
  code.out_(code.dx, code.eax);
}

void emit_lapic_write(Code& code, u32 offset, u32 value) {
  code.mov(code.eax, value);
  code.mov(code.edx, static_cast<u32>(kLapicAt) + offset);
  code.mov(code.dword[code.rdx], code.eax);
}

void emit_idle(TinyGuest& guest, Code& code, std::initializer_list<Reported> handlers) {
  constexpr u32 kEoi = 0xb0;
  Xbyak::Label idle;
  code.sti();
  code.L(idle);
  code.hlt();
  code.jmp(idle);
  for (const Reported& handler : handlers) {
    guest.set_gate(handler.vector, guest.here(code));
    code.mov(code.eax, handler.number);
    emit_report(code);
    emit_lapic_write(code, kEoi, 0);
    emit_iret(code);
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, Conformance, testing::ValuesIn(engines_under_test()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace bulkhead::engine
