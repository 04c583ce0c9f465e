// IOAPIC: 24 pins into messages for the local APICs.       Source: [82093aa], [ich "I/O APIC"] for version 0x20 with
// EOI Fidelity: index/data/EOI registers, masks, edge and level with remote IRR, fixed, lowest-priority, NMI and INIT
// delivery. Differences: ExtINT and SMI entries are kept but send nothing (the PIC reaches a vCPU by its own pin; there
// is no SMM). The polarity bit is kept but means nothing: an IrqLine says "asserted", not "high". Edges while masked
// are lost, as the data sheet has it. The data register takes 32-bit accesses only.
//
// Lines are driven from any thread, registers by vCPUs under the bus lock, eoi() by any vCPU thread: the model has a
// mutex of its own, held while messages are sent. Order: device, ioapic, engine: eoi() is called with no engine lock
// held.
#pragma once
#include <array>
#include <functional>
#include <optional>

#include "base/sync.h"
#include "bus/io.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

class IoApic final : public IoDevice {
 public:
  static constexpr Gpa kAddress{0xfec00000};
  static constexpr u64 kSize = 0x1000;
  static constexpr unsigned kPins = 24;
  static constexpr u8 kVersion = 0x20;

  explicit IoApic(MsiSink& sink);  // outlives us; must not call back into us from send()

  IoReply read(u64 offset, AccessSize size) override;
  IoReply write(u64 offset, u64 value, AccessSize size) override;

  IrqLine& line(Gsi gsi) { return lines_[gsi.value]; }  // 0..23
  void eoi(u8 vector);                                  // a local APIC ended a level-triggered interrupt of this vector
  void reset();                                         // all masked; lines keep their levels
  // Tells, now and whenever it changes, what an edge of this pin sends: nothing while it is masked, level-triggered or
  // of a kind that sends nothing. Whoever is told may send that message instead of driving the line. Called under our
  // lock. Before the vCPUs run.
  void watch(unsigned pin, std::function<void(const std::optional<Msi>&)> told);

  // Messages sent so far; any thread.
  u64 sent() const { return sent_.value(); }

 private:
  class Line final : public IrqLine {
   public:
    void set(bool asserted) override { ioapic->set_line(pin, asserted); }
    IoApic* ioapic = nullptr;
    unsigned pin = 0;
  };

  void set_line(unsigned pin, bool asserted);
  void end_of_interrupt(u8 vector) BH_REQUIRES(mutex_);
  u32 read_register() const BH_REQUIRES(mutex_);
  void write_register(u32 value) BH_REQUIRES(mutex_);
  void write_entry_low(unsigned pin, u32 value) BH_REQUIRES(mutex_);
  void send_if_level(unsigned pin) BH_REQUIRES(mutex_);
  void send(unsigned pin) BH_REQUIRES(mutex_);
  void tell(unsigned pin) BH_REQUIRES(mutex_);

  MsiSink& sink_;
  std::array<Line, kPins> lines_;
  telemetry::Counter sent_;

  mutable Mutex mutex_;
  u8 select_ BH_GUARDED_BY(mutex_) = 0;
  u32 id_ BH_GUARDED_BY(mutex_) = 0;
  u32 asserted_ BH_GUARDED_BY(mutex_) = 0;  // a bit per pin
  std::array<u64, kPins> entries_ BH_GUARDED_BY(mutex_);
  std::array<std::function<void(const std::optional<Msi>&)>, kPins> watchers_ BH_GUARDED_BY(mutex_);
};

}  // namespace bulkhead::device
