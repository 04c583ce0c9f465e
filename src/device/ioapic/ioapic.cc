#include "device/ioapic/ioapic.h"

#include "base/bits.h"

namespace bulkhead::device {
namespace {
enum Offset : u64 { kSelect = 0x00, kData = 0x10, kEoi = 0x40 };
enum Register : u8 { kId = 0, kVersionRegister = 1, kArbitration = 2, kEntries = 0x10 };

// Redirection entries [82093aa §3.2.4].
constexpr u32 kMasked = 1u << 16, kLevel = 1u << 15, kRemoteIrr = 1u << 14, kDeliveryStatus = 1u << 12,
              kLogical = 1u << 11;
constexpr u32 kReadOnly = kRemoteIrr | kDeliveryStatus;
constexpr u32 kLowBits = 0x1ffff;
constexpr u32 kHighBits = 0xff000000;
enum Delivery : unsigned { kFixed, kLowestPriority, kSmi, kReserved3, kNmi, kInit, kReserved6, kExtInt };

unsigned delivery_of(u64 entry) { return static_cast<unsigned>(bits(entry, 10, 8)); }
bool sends(unsigned delivery) {
  return delivery == kFixed || delivery == kLowestPriority || delivery == kNmi || delivery == kInit;
}
// Remote IRR exists for what a local APIC ends with an EOI broadcast only.
bool is_level(u64 entry) { return (entry & kLevel) && delivery_of(entry) <= kLowestPriority; }

// [SDM-3A "Message Address Register Format", "Message Data Register Format"]
Msi message_of(u64 entry) {
  Msi message;
  message.address = 0xfee00000u | bits(entry, 63, 56) << 12 | ((entry & kLogical) ? 1u << 2 : 0);
  message.data = static_cast<u32>(entry & 0x7ff);  // vector and delivery mode have the same places
  if (is_level(entry)) message.data |= 1u << 15 | 1u << 14;
  return message;
}
}  // namespace

IoApic::IoApic(MsiSink& sink) : sink_{sink} {
  for (unsigned pin = 0; pin < kPins; ++pin) {
    lines_[pin].ioapic = this;
    lines_[pin].pin = pin;
  }
  entries_.fill(kMasked);
}

void IoApic::reset() {
  Lock lock{mutex_};
  select_ = 0;
  id_ = 0;
  entries_.fill(kMasked);
  for (unsigned pin = 0; pin < kPins; ++pin) tell(pin);
}

void IoApic::set_line(unsigned pin, bool asserted) {
  Lock lock{mutex_};
  const bool rose = asserted && !bit(asserted_, pin);
  asserted_ = asserted ? asserted_ | 1u << pin : asserted_ & ~(1u << pin);
  if (is_level(entries_[pin]))
    send_if_level(pin);
  else if (rose && !(entries_[pin] & kMasked))
    send(pin);
}

void IoApic::send_if_level(unsigned pin) {
  u64& entry = entries_[pin];
  if (!is_level(entry) || !bit(asserted_, pin) || (entry & (kMasked | kRemoteIrr))) return;
  entry |= kRemoteIrr;
  send(pin);
}

void IoApic::send(unsigned pin) {
  if (!sends(delivery_of(entries_[pin]))) return;
  sent_.add();
  sink_.send(message_of(entries_[pin]));
}

void IoApic::watch(unsigned pin, std::function<void(const std::optional<Msi>&)> told) {
  Lock lock{mutex_};
  watchers_[pin] = std::move(told);
  tell(pin);
}

void IoApic::tell(unsigned pin) {
  if (!watchers_[pin]) return;
  const u64 entry = entries_[pin];
  std::optional<Msi> message;
  if (!(entry & (kMasked | kLevel)) && sends(delivery_of(entry))) message = message_of(entry);
  watchers_[pin](message);
}

void IoApic::eoi(u8 vector) {
  Lock lock{mutex_};
  end_of_interrupt(vector);
}

void IoApic::end_of_interrupt(u8 vector) {
  for (unsigned pin = 0; pin < kPins; ++pin) {
    if (static_cast<u8>(entries_[pin]) != vector || !(entries_[pin] & kRemoteIrr)) continue;
    entries_[pin] &= ~u64{kRemoteIrr};
    send_if_level(pin);
  }
}

IoReply IoApic::read(u64 offset, AccessSize size) {
  Lock lock{mutex_};
  if (offset == kSelect) return IoReply::data(select_);
  if (offset == kData && size == AccessSize::k4) return IoReply::data(read_register());
  return IoReply::ignored();
}

IoReply IoApic::write(u64 offset, u64 value, AccessSize size) {
  Lock lock{mutex_};
  if (offset == kSelect) {
    select_ = static_cast<u8>(value);
  } else if (offset == kData && size == AccessSize::k4) {
    write_register(static_cast<u32>(value));
  } else if (offset == kEoi) {
    end_of_interrupt(static_cast<u8>(value));
  } else {
    return IoReply::ignored();
  }
  return IoReply::done();
}

u32 IoApic::read_register() const {
  switch (select_) {
    case kId:
    case kArbitration:
      return id_;
    case kVersionRegister:
      return kVersion | (kPins - 1) << 16;
    default:
      break;
  }
  const unsigned index = select_ - kEntries;
  if (select_ < kEntries || index >= 2 * kPins) return 0;
  return static_cast<u32>(entries_[index / 2] >> (index % 2 ? 32 : 0));
}

void IoApic::write_register(u32 value) {
  if (select_ == kId) id_ = value & 0x0f000000;
  const unsigned index = select_ - kEntries;
  if (select_ < kEntries || index >= 2 * kPins) return;
  if (index % 2 == 0) return write_entry_low(index / 2, value);
  u64& entry = entries_[index / 2];
  entry = (entry & ~u32{0}) | u64{value & kHighBits} << 32;
  tell(index / 2);
}

void IoApic::write_entry_low(unsigned pin, u32 value) {
  u64& entry = entries_[pin];
  entry = (entry & ~u64{kLowBits & ~kReadOnly}) | (value & kLowBits & ~kReadOnly);
  // Edge entries have no remote IRR; kernels that know no EOI register clear it by a visit to edge mode.
  if (!is_level(entry)) entry &= ~u64{kRemoteIrr};
  tell(pin);
  send_if_level(pin);
}

}  // namespace bulkhead::device
