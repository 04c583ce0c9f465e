// One 8259A, as pure state: no lock, no callbacks. Pic joins two of them.       Source: [i8259a "8259A PIC" datasheet]
#pragma once
#include <optional>

#include "base/ints.h"

namespace bulkhead::device {

class PicChip {
 public:
  // `level_allowed`: pins whose ELCR bit can be set. `cascade_pin`: the one where another chip's INT comes in, if any;
  // it is always level-triggered, since that is how the other chip's output behaves here.
  PicChip(u8 level_allowed, std::optional<unsigned> cascade_pin)
      : level_allowed_{level_allowed}, cascade_bits_{static_cast<u8>(cascade_pin ? 1u << *cascade_pin : 0)} {}

  void reset();  // everything masked; what the input pins show is kept

  void set_input(unsigned pin, bool high);
  bool output() const { return pending().has_value(); }  // INT
  std::optional<unsigned> pending() const;               // the pin that INT is about
  void acknowledge(unsigned pin);                        // as by INTA
  bool is_cascade(unsigned pin) const { return !single_ && (cascade_bits_ >> pin & 1); }
  u8 vector(unsigned pin) const { return vector_base_ | static_cast<u8>(pin); }

  u8 read(unsigned a0);
  void write(unsigned a0, u8 value);
  u8 level_pins() const { return level_; }  // ELCR
  void set_level_pins(u8 value);

 private:
  u8 poll();
  void start_initialisation(u8 icw1);
  void continue_initialisation(u8 value);
  void operation_command(u8 ocw2);
  void end_of_interrupt(std::optional<unsigned> pin, bool rotate);
  std::optional<unsigned> highest_in_service() const;
  unsigned pin_of_rank(unsigned rank) const { return (lowest_ + 1 + rank) & 7; }  // rank 0 is the highest priority

  const u8 level_allowed_;
  const u8 cascade_bits_;
  u8 inputs_ = 0;  // what the pins show
  u8 irr_ = 0, imr_ = 0xff, isr_ = 0;
  u8 level_ = 0;
  u8 vector_base_ = 0;
  unsigned lowest_ = 7;    // the pin of the lowest priority
  unsigned next_icw_ = 0;  // 2..4 while being initialised, otherwise 0
  bool wants_icw4_ = false;
  bool single_ = false;
  bool auto_eoi_ = false, rotate_on_auto_eoi_ = false;
  bool special_mask_ = false, special_fully_nested_ = false;
  bool read_isr_ = false, polling_ = false;
};

}  // namespace bulkhead::device
