#include "device/pic/pic_chip.h"

#include <utility>

namespace bulkhead::device {
namespace {
// ICW1 and ICW4
constexpr u8 kIcw1 = 0x10, kIcw1WantsIcw4 = 0x01, kIcw1Single = 0x02;
constexpr u8 kIcw4AutoEoi = 0x02, kIcw4SpecialFullyNested = 0x10;
// OCW3
constexpr u8 kOcw3 = 0x08, kOcw3ReadRegister = 0x02, kOcw3ReadIsr = 0x01, kOcw3Poll = 0x04, kOcw3SetSpecialMask = 0x40,
             kOcw3SpecialMask = 0x20;

constexpr u8 bit_of(unsigned pin) { return static_cast<u8>(1u << pin); }
}  // namespace

void PicChip::reset() {
  irr_ = inputs_ & cascade_bits_;
  imr_ = 0xff;
  isr_ = level_ = vector_base_ = 0;
  lowest_ = 7;
  next_icw_ = 0;
  wants_icw4_ = single_ = auto_eoi_ = rotate_on_auto_eoi_ = false;
  special_mask_ = special_fully_nested_ = read_isr_ = polling_ = false;
}

void PicChip::set_input(unsigned pin, bool high) {
  const u8 mask = bit_of(pin);
  const bool rose = high && !(inputs_ & mask);
  inputs_ = high ? inputs_ | mask : inputs_ & ~mask;
  if ((level_ | cascade_bits_) & mask)
    irr_ = high ? irr_ | mask : irr_ & ~mask;
  else if (rose)
    irr_ |= mask;
  // A falling edge leaves the request latched. The chip would drop it and answer INTA with pin 7; models here may pulse
  // their lines without waiting for INTA, and must not lose interrupts by it.
}

std::optional<unsigned> PicChip::pending() const {
  const u8 requests = irr_ & ~imr_;
  // In special mask mode what is masked does not hold back what is below it.
  const u8 in_service = special_mask_ ? isr_ & ~imr_ : isr_;
  for (unsigned rank = 0; rank < 8; ++rank) {
    const unsigned pin = pin_of_rank(rank);
    // Special fully nested: a second, more urgent request of the slave passes the one in service.
    const bool passes = special_fully_nested_ && (cascade_bits_ & bit_of(pin));
    if ((in_service & bit_of(pin)) && !passes) return std::nullopt;
    if (requests & bit_of(pin)) return pin;
    if (in_service & bit_of(pin)) return std::nullopt;
  }
  return std::nullopt;
}

void PicChip::acknowledge(unsigned pin) {
  const u8 mask = bit_of(pin);
  if (!((level_ | cascade_bits_) & mask)) irr_ &= ~mask;
  if (!auto_eoi_)
    isr_ |= mask;
  else if (rotate_on_auto_eoi_)
    lowest_ = pin;
}

u8 PicChip::poll() {
  const auto pin = pending();
  if (!pin) return 0;
  acknowledge(*pin);
  return static_cast<u8>(0x80 | *pin);
}

u8 PicChip::read(unsigned a0) {
  if (std::exchange(polling_, false)) return poll();
  if (a0 != 0) return imr_;
  return read_isr_ ? isr_ : irr_;
}

void PicChip::write(unsigned a0, u8 value) {
  if (a0 != 0) {
    if (next_icw_ != 0)
      continue_initialisation(value);
    else
      imr_ = value;
  } else if (value & kIcw1) {
    start_initialisation(value);
  } else if (value & kOcw3) {
    if (value & kOcw3Poll) polling_ = true;
    if (value & kOcw3ReadRegister) read_isr_ = value & kOcw3ReadIsr;
    if (value & kOcw3SetSpecialMask) special_mask_ = value & kOcw3SpecialMask;
  } else {
    operation_command(value);
  }
}

// The level/edge bit of ICW1 is not looked at: a PC has the ELCR instead.
void PicChip::start_initialisation(u8 icw1) {
  irr_ = inputs_ & (level_ | cascade_bits_);  // edges must come anew
  imr_ = isr_ = 0;
  lowest_ = 7;
  auto_eoi_ = rotate_on_auto_eoi_ = special_mask_ = special_fully_nested_ = false;
  read_isr_ = polling_ = false;
  wants_icw4_ = icw1 & kIcw1WantsIcw4;
  single_ = icw1 & kIcw1Single;
  next_icw_ = 2;
}

void PicChip::continue_initialisation(u8 value) {
  switch (next_icw_) {
    case 2:
      vector_base_ = value & 0xf8;
      next_icw_ = !single_ ? 3 : wants_icw4_ ? 4 : 0;
      break;
    case 3:  // where the slave is: wired on a PC
      next_icw_ = wants_icw4_ ? 4 : 0;
      break;
    default:
      auto_eoi_ = value & kIcw4AutoEoi;
      special_fully_nested_ = value & kIcw4SpecialFullyNested;
      next_icw_ = 0;
      break;
  }
}

void PicChip::operation_command(u8 ocw2) {
  const unsigned named = ocw2 & 7;
  switch (ocw2 >> 5) {  // R, SL, EOI
    case 0b000:
      rotate_on_auto_eoi_ = false;
      break;
    case 0b100:
      rotate_on_auto_eoi_ = true;
      break;
    case 0b001:
      end_of_interrupt(highest_in_service(), false);
      break;
    case 0b101:
      end_of_interrupt(highest_in_service(), true);
      break;
    case 0b011:
      end_of_interrupt(named, false);
      break;
    case 0b111:
      end_of_interrupt(named, true);
      break;
    case 0b110:
      lowest_ = named;
      break;
    default:
      break;  // 010: no operation
  }
}

std::optional<unsigned> PicChip::highest_in_service() const {
  const u8 candidates = special_mask_ ? isr_ & ~imr_ : isr_;
  for (unsigned rank = 0; rank < 8; ++rank)
    if (candidates & bit_of(pin_of_rank(rank))) return pin_of_rank(rank);
  return std::nullopt;
}

void PicChip::end_of_interrupt(std::optional<unsigned> pin, bool rotate) {
  if (!pin) return;
  isr_ &= ~bit_of(*pin);
  if (rotate) lowest_ = *pin;
}

void PicChip::set_level_pins(u8 value) {
  const u8 changed = (value & level_allowed_) ^ level_;
  level_ = value & level_allowed_;
  const u8 now_level = changed & level_;
  irr_ = (irr_ & ~now_level) | (inputs_ & now_level);
}

}  // namespace bulkhead::device
