// The local APIC of one vCPU, xAPIC and x2APIC, and the bus between them.           Spec: [SDM-3A "Advanced PIC"]
// Fidelity: complete but for SMI (no SMM), the performance-counter and thermal sources (nothing raises them) and CMCI.
// The bus clock behind the timer is 1 GHz: with divide-by-1 one count is one nanosecond.
//
// Incoming interrupts come from any thread; everything marked [vcpu] is the guest's own doing and happens on its vCPU's
// thread. General registers only. A lock inside; no lock is held while another LAPIC or a device is called.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/dbt/cpu/cpu_state.h"
#include "engine/dbt/cpu/futex.h"
#include "engine/engine.h"

namespace bulkhead::engine::dbt {

class Lapic;

// Offsets in the register page; the x2APIC MSR is 0x800 + offset / 16 [SDM-3A "Local APIC Register Address Map"].
namespace lapic_reg {
enum : u32 {
  kId = 0x20,
  kVersion = 0x30,
  kTaskPriority = 0x80,
  kArbitration = 0x90,
  kProcessorPriority = 0xa0,
  kEoi = 0xb0,
  kLogicalDestination = 0xd0,
  kDestinationFormat = 0xe0,
  kSpurious = 0xf0,
  kIsr = 0x100,
  kTmr = 0x180,
  kIrr = 0x200,
  kErrorStatus = 0x280,
  kCommand = 0x300,
  kCommandHigh = 0x310,
  kLvtTimer = 0x320,
  kLvtThermal = 0x330,
  kLvtPerformance = 0x340,
  kLvt0 = 0x350,
  kLvt1 = 0x360,
  kLvtError = 0x370,
  kInitialCount = 0x380,
  kCurrentCount = 0x390,
  kDivide = 0x3e0,
  kSelfIpi = 0x3f0
};
inline constexpr u32 kLvtMasked = 1u << 16;
}  // namespace lapic_reg

enum class DeliveryMode : u8 { kFixed = 0, kLowestPriority = 1, kSmi = 2, kNmi = 4, kInit = 5, kSipi = 6, kExtInt = 7 };

inline constexpr u32 kBroadcast = ~u32{0};

struct InterruptMessage {
  u32 destination = 0;  // or kBroadcast
  bool logical = false;
  DeliveryMode mode = DeliveryMode::kFixed;
  u8 vector = 0;
  bool level_triggered = false;
};

// Joins the LAPICs of a partition: routes messages, and keeps the clock that their timers run by.
class LapicBus {
 public:
  struct Features {
    u64 tsc_hz = 1'000'000'000;  // of host and guest alike
    bool x2apic = true;
    bool tsc_deadline = true;
    u8 physical_bits = 40;  // width of a guest-physical address
  };
  explicit LapicBus(const Features& features);
  virtual ~LapicBus() = default;

  void deliver_msi(Msi message);        // any thread
  void set_extint(bool asserted);       // the 8259's pin on LINT0 of vCPU 0; any thread
  std::function<void(u8)> eoi_handler;  // may be empty; called on the vCPU's thread
  ExtIntSource* extint_source = nullptr;
  std::atomic<bool> extint_asserted{false};

  // The timers of vCPUs that do not sleep are run by one thread: it calls run_timers(), then waits for
  // wait_for_timers(), until stop_timers().
  void run_timers();
  bool wait_for_timers();  // false after stop_timers()
  void stop_timers();      // any thread

  u64 nanoseconds_of(u64 tsc_ticks) const { return static_cast<u64>((u128{tsc_ticks} * tsc_to_ns_) >> 32); }
  u64 ticks_of(u64 nanoseconds) const { return static_cast<u64>((u128{nanoseconds} * ns_to_tsc_) >> 32); }
  const Features features;

 protected:
  friend class Lapic;
  virtual u64 host_tsc() const;  // tests hold it still
  // Before code is called that may use the host's vector registers. On vCPU `index`'s thread.
  virtual void before_callout(unsigned index) { (void)index; }
  // Before vCPU `index` sends an interrupt, on its thread: what it wrote to code must be known to the receiver first.
  virtual void before_ipi(unsigned index) { (void)index; }

 private:
  void add(Lapic& lapic);
  // To every LAPIC that the destination names, but for `except`; or to one of them (lowest priority).
  void route(const InterruptMessage& message, const Lapic* except = nullptr);
  void timer_armed(u64 deadline);
  std::vector<Lapic*> lapics_;            // by vCPU; complete before the first interrupt
  std::atomic<u32> round_robin_{0};       // tie-breaker of lowest-priority delivery
  u64 tsc_to_ns_, ns_to_tsc_;             // 32.32 fixed point
  std::atomic<u32> timer_sequence_{0};    // futex: bumped when the timer thread must look again
  std::atomic<u64> timer_wake_{~u64{0}};  // when it will look by itself, host TSC; ~0 while it is looking
  std::atomic<bool> timer_stop_{false};
};

class Lapic {
 public:
  // `state` is the vCPU's: `pending` is signalled, `tsc_offset` read. Both outlive us. vCPUs are made in order of
  // index.
  Lapic(LapicBus& bus, unsigned index, CpuState& state);

  // ---- registers [vcpu]
  // IA32_APIC_BASE 0x1b, IA32_TSC_DEADLINE 0x6e0, x2APIC 0x800..0x8ff. False: #GP.
  bool read_msr(u32 index, u64& value);
  bool write_msr(u32 index, u64 value);
  // `offset` into the 4 KiB page; registers are 32 bits wide at multiples of 16.
  u32 mmio_read(u32 offset);
  void mmio_write(u32 offset, u32 value);
  // The page that answers at guest-physical `gpa`? (Not in x2APIC mode, nor when disabled.) Any thread.
  bool claims(u64 gpa) const { return (gpa & ~u64{0xfff}) == mmio_page_.load(std::memory_order_relaxed); }
  u64 base() const { return base_ & ~u64{0xfff}; }
  bool enabled() const { return (base_ >> 11) & 1; }  // by IA32_APIC_BASE
  bool x2apic() const { return (base_ >> 10) & 1; }
  u8 cr8() const;
  void set_cr8(u8 priority);  // 0..15
  void reset(bool init);      // power-on, or INIT (which keeps IA32_APIC_BASE)
  void tsc_offset_changed();  // after s.tsc_offset changed: the deadline lies in guest time

  // ---- interrupts
  // An interrupt could be taken now if IF allowed it. One load; any thread.
  bool has_interrupt() const { return deliverable_.load(std::memory_order_acquire); }
  // Takes it: the vector, now in service; or nothing if it went away. [vcpu]
  std::optional<u8> acknowledge();
  // An interrupt that no register here shows: taken before all others, as soon as IF allows. Any thread.
  void inject_direct(u8 vector);
  void inject_nmi() { signal(kPendingNmi); }                                       // any thread
  u8 sipi_vector() const { return sipi_vector_.load(std::memory_order_acquire); }  // valid with kPendingSipi
  // An application processor after reset or INIT runs nothing until a SIPI. [vcpu]
  bool waiting_for_sipi() const { return waiting_for_sipi_.load(std::memory_order_acquire); }
  void set_waiting_for_sipi(bool waiting) { waiting_for_sipi_.store(waiting, std::memory_order_release); }

  // ---- the vCPU's thread
  // Sets bits in s.pending and wakes the vCPU if it sleeps. Any thread.
  void signal(u32 pending_bits);
  // Sleeps until s.pending is not 0 or the timer's deadline passed (its interrupt is then signalled). When sleeps turn
  // out short it first looks for a moment, because waking a thread takes longer than most answers. [vcpu]
  void sleep();

  // ---- whole state, while the vCPU does not run
  void save(std::span<u8, 1024> page) const;
  void load(std::span<const u8, 1024> page, u64 apic_base, u64 tsc_deadline);
  u64 apic_base() const { return base_; }
  u64 tsc_deadline() const { return tsc_deadline_; }

  const unsigned index;

 private:
  friend class LapicBus;
  enum class TimerMode : u8 { kOneShot = 0, kPeriodic = 1, kDeadline = 2, kReserved = 3 };
  static constexpr u64 kNever = ~u64{0};

  u32& reg(u32 offset) { return regs_[offset >> 4]; }
  u32 reg(u32 offset) const { return regs_[offset >> 4]; }
  bool software_enabled() const { return (reg(lapic_reg::kSpurious) >> 8) & 1; }
  // IRR, ISR and TMR: 256 bits in eight registers from `base` on.
  bool test_vector(u32 base, u8 vector) const { return (reg(base + (vector >> 5) * 16) >> (vector & 31)) & 1; }
  void set_vector(u32 base, u8 vector) { reg(base + (vector >> 5) * 16) |= 1u << (vector & 31); }
  void clear_vector(u32 base, u8 vector) { reg(base + (vector >> 5) * 16) &= ~(1u << (vector & 31)); }
  int highest(u32 base) const;  // -1: none

  // [locked]: called with mutex_ held.
  // lapic_registers.cc
  u32 read_register(u32 offset);               // [locked]
  void write_register(u32 offset, u32 value);  // [locked]
  void write_spurious(u32 value);              // [locked]
  void write_lvt(u32 offset, u32 value);       // [locked]
  bool write_base(u64 value);
  bool write_x2apic(u32 offset, u64 value);
  void power_on_registers(bool init);  // [locked]
  void enter_x2apic();                 // [locked]
  void publish_page();

  // lapic.cc
  bool poll(u64 deadline);  // true: no need to sleep
  void adapt_polling(u64 slept_ticks);
  bool lint0_passes_extint() const;  // [locked]
  void lint0_changed(bool asserted);
  void accept(const InterruptMessage& message);
  void accept_vector(u8 vector, bool level);  // [locked]
  void report_error(u32 esr_bit);             // [locked]
  bool update();                              // [locked] PPR and deliverable_, which it returns
  // Locks for a change of what may be deliverable. Wakes whoever it concerns when the lock is free again: earlier they
  // would only run into it.
  class Change {
   public:
    explicit Change(Lapic& lapic) : lapic_{lapic} { lapic_.mutex_.lock(); }
    ~Change() {
      const bool deliverable = lapic_.update();
      const u64 armed = std::exchange(lapic_.armed_, kNever);
      lapic_.mutex_.unlock();
      if (deliverable) lapic_.signal(kPendingInterrupt);
      if (armed != kNever) lapic_.bus_.timer_armed(armed);
    }
    Change(const Change&) = delete;

   private:
    Lapic& lapic_;
  };
  void end_of_interrupt();

  // lapic_ipi.cc
  void send_ipi(u32 command, u32 destination);
  bool matches(const InterruptMessage& message) const;
  u32 arbitration_priority() const;

  // lapic_timer.cc
  TimerMode timer_mode() const { return static_cast<TimerMode>((reg(lapic_reg::kLvtTimer) >> 17) & 3); }
  u64 timer_unit() const;       // nanoseconds of one count
  void start_count(u32 count);  // [locked] from the initial count, or on from `count`
  void arm(u64 deadline);       // [locked] host TSC or kNever
  void fire_if_due(u64 now);    // [locked]
  u32 current_count() const;
  void set_deadline(u64 guest_tsc);  // [locked]
  void check_timer(u64 now);         // any thread

  LapicBus& bus_;
  CpuState& state_;
  mutable FutexMutex mutex_;
  std::array<u32, 64> regs_{};   // one for each 16 bytes of the page; IRR, ISR, TMR included
  u32 errors_ = 0;               // what the next write to ESR shows
  u64 base_ = 0;                 // IA32_APIC_BASE
  u64 tsc_deadline_ = 0;         // IA32_TSC_DEADLINE, guest TSC
  u64 armed_ = kNever;           // a deadline that the timer thread has not been told of
  u64 period_ = 0;               // of the running count, host TSC ticks
  bool extint_latched_ = false;  // an ExtINT message came
  u8 direct_vector_ = 0;         // from inject_direct(); 0: none
  std::atomic<u64> mmio_page_{kNever};
  std::atomic<u64> deadline_{kNever};  // host TSC
  std::atomic<bool> deliverable_{false};
  std::atomic<bool> sleeping_{false};
  u64 poll_ticks_ = 0;  // how long sleep() looks before it sleeps; the vCPU's thread only
  std::atomic<bool> waiting_for_sipi_{false};
  std::atomic<u8> sipi_vector_{0};
};

}  // namespace bulkhead::engine::dbt
