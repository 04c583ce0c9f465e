// A guest of a few instructions and the machine around it.
#pragma once
#include <gtest/gtest.h>
#include <xbyak/xbyak.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "tests/engine/engines.h"

namespace bulkhead::engine {

// Guest-physical layout; all of the low 4 GiB is identity-mapped by 2 MiB pages in long mode (the LAPIC page included),
// but for kSmallPages, mapped by 4 KiB pages.
inline constexpr u64 kGdtAt = 0x8000, kIdtAt = 0x9000, kTssAt = 0xa000, kTablesAt = 0x10000, kStackTop = 0x90000,
                     kStack2Top = 0xa0000, kCodeAt = 0x100000, kDataAt = 0x180000, kSmallPages = 0x200000,
                     kRamSize = 0x800000, kMmioAt = 0x10000000, kLapicAt = 0xfee00000;
inline constexpr u16 kKernelCode = 0x08, kKernelData = 0x10, kUserData = 0x1b, kUserCode = 0x23, kCode32 = 0x28,
                     kTss = 0x30;
// Where guests report to the test.
inline constexpr u16 kReportPort = 0xf4;

using Code = Xbyak::CodeGenerator;

class TinyGuest {
 public:
  // Builds the partition. An engine that this host cannot run skips the test.
  explicit TinyGuest(const EngineUnderTest& engine, unsigned vcpus = 1, ParavirtAbi abi = ParavirtAbi::kNone);
  ~TinyGuest();
  bool ready() const { return partition_ != nullptr; }

  GuestMemory& memory() { return memory_; }
  Partition& partition() { return *partition_; }
  Vcpu& vcpu(unsigned index = 0) { return partition_->vcpu(index); }

  // ---- guests
  // 64-bit supervisor code at kCodeAt. `emit` gets a generator whose addresses are the guest's.
  template <class Emit>
  void long_mode(Emit emit, unsigned vcpu = 0) {
    assemble(emit, kCodeAt + 0x10000 * vcpu);
    enter_long_mode(vcpu, kCodeAt + 0x10000 * vcpu);
  }
  void real_mode(std::initializer_list<u8> code, u64 at = 0x1000);
  void protected_mode(std::initializer_list<u8> code, u64 at = 0x1000);
  template <class Emit>
  void assemble(Emit emit, u64 at) {
    Code code{kCodeSize, host(at)};
    guest_base_ = at;
    host_base_ = reinterpret_cast<u64>(host(at));
    emit(code);
  }
  // The guest-physical address of a place in code being assembled.
  u64 address_of(const u8* host_address) const {
    return guest_base_ + reinterpret_cast<u64>(host_address) - host_base_;
  }
  u64 here(const Code& code) const { return address_of(code.getCurr()); }
  void enter_long_mode(unsigned vcpu, u64 rip);
  void set_gate(u8 vector, u64 handler, unsigned dpl = 0);
  void set_small_page(u64 linear, u64 entry);  // linear in [kSmallPages, +2 MiB)

  u8* host(u64 gpa) { return reinterpret_cast<u8*>(memory_.host(Gpa{gpa}, 1)); }
  u64 load64(u64 gpa) { return *memory_.load<u64>(Gpa{gpa}); }
  u32 load32(u64 gpa) { return *memory_.load<u32>(Gpa{gpa}); }

  // ---- running
  // Runs until the exit is something else than a watchdog's kick. When the watchdog ends it, fails the test.
  Exit& run(unsigned vcpu = 0);
  // Expects that kind of exit next; fails the test and gives a dead object if it is another.
  template <class Kind>
  Kind& expect(unsigned vcpu = 0) {
    Exit& exit = run(vcpu);
    if (Kind* kind = std::get_if<Kind>(&exit)) return *kind;
    unexpected(exit, vcpu);
    static thread_local Kind none;
    none = Kind{};
    return none;
  }
  // The next write to kReportPort.
  u64 report(unsigned vcpu = 0);
  // Runs vCPU `index` on a thread of its own until it writes kReportPort `reports` times, halts for good or is stopped.
  void start_thread(unsigned index);
  void stop_threads();

 private:
  static constexpr size_t kCodeSize = 4096;
  static constexpr auto kPatience = std::chrono::seconds{60};
  std::string prepare(const EngineUnderTest& engine);  // why the test is skipped, or nothing
  void build_tables();
  void unexpected(const Exit& exit, unsigned vcpu);
  void watch();

  GuestMemory memory_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Partition> partition_;
  unsigned vcpus_;
  ParavirtAbi abi_;
  u64 guest_base_ = 0, host_base_ = 0;

  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false}, expired_{false};
  std::thread watchdog_;
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
};

// Every test of the suite is run for every engine.
class Conformance : public testing::TestWithParam<EngineUnderTest> {};
#define BH_NEEDS(need) \
  if (const std::string why = GetParam().lacks(need); !why.empty()) GTEST_SKIP() << GetParam().name << ": " << why
#define BH_CONFORMANCE_GUEST(guest, ...)                  \
  TinyGuest guest{GetParam() __VA_OPT__(, ) __VA_ARGS__}; \
  if (!guest.ready()) return

// R15 is zero in every 64-bit guest, as a base for absolute addresses.
void emit_iret(Code& code);
void emit_read_cr(Code& code, u8 number);  // into RAX
void emit_write_cr3(Code& code);           // from RAX
// Writes EAX to kReportPort. Clobbers RDX.
void emit_report(Code& code);
// Writes a LAPIC register of the memory-mapped page. Clobbers RAX, RDX.
void emit_lapic_write(Code& code, u32 offset, u32 value);
// Halts with interrupts on, for ever; the handler of each vector reports the number beside it and ends the interrupt.
struct Reported {
  u8 vector;
  u32 number;
};
void emit_idle(TinyGuest& guest, Code& code, std::initializer_list<Reported> handlers);

}  // namespace bulkhead::engine
