// An IOAPIC of 24 pins at 0xfec00000 and two 8259s with their ELCRs, wired as on a PC, for engines that have them
// themselves. GSI 0 reaches pin 2 of the IOAPIC and line 0 of the 8259; GSIs 1 to 15, but 2, both by their number.
#pragma once
#include <array>
#include <memory>

#include "base/ints.h"
#include "base/result.h"
#include "engine/registrations.h"

namespace bulkhead::engine {

struct IoApicState {
  u8 id = 0;
  u8 select = 0;                  // the index register
  u32 pending = 0;                // a bit for each pin: requested and not delivered yet
  std::array<u64, 24> entries{};  // as the guest reads them, with remote IRR
  bool operator==(const IoApicState&) const = default;
};

struct Pic8259State {
  u8 last_lines = 0, requested = 0, masked = 0, in_service = 0;
  u8 lowest_priority = 0, vector_base = 0, edge_control = 0;
  u8 init_step = 0;  // of the four initialisation words, 0: done
  bool read_in_service = false, poll = false, special_mask = false, auto_eoi = false, rotate_on_auto_eoi = false;
  bool fully_nested = false, fourth_word = false;
  bool operator==(const Pic8259State&) const = default;
};

struct InterruptControllerState {
  IoApicState ioapic;
  std::array<Pic8259State, 2> pics;  // master, slave
  u32 lines = 0;                     // a bit for each GSI: asserted by set_line()
  bool operator==(const InterruptControllerState&) const = default;
};

// An eventfd that moves a line.
class LineRegistration : public Registration {
 public:
  virtual int descriptor() const = 0;  // adding to it: an edge; where ended() is there: the line goes up and stays
  // Of level lines: signalled when the guest has ended the interrupt, the line being down again; -1 for edges.
  virtual int ended() const = 0;
};

class InterruptController {
 public:
  static constexpr u32 kLines = 24;
  enum class Trigger : u8 { kEdge, kLevel };
  virtual ~InterruptController() = default;
  virtual void set_line(Gsi gsi, bool asserted) = 0;  // gsi < kLines. Any thread
  // Errors: the host has no descriptor left.
  virtual Result<std::unique_ptr<LineRegistration>> line_by_event(Gsi gsi, Trigger trigger) = 0;
  // While no vCPU runs.
  virtual Result<InterruptControllerState> state() = 0;
  virtual Result<void> set_state(const InterruptControllerState& state) = 0;
};

}  // namespace bulkhead::engine
