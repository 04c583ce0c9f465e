// Register access: the MMIO page, the x2APIC MSRs and IA32_APIC_BASE.
#include "engine/dbt/cpu/lapic.h"

namespace bulkhead::engine::dbt {

using namespace lapic_reg;

namespace {
constexpr u64 kBaseBsp = 1u << 8, kBaseX2apic = 1u << 10, kBaseEnable = 1u << 11;
constexpr u32 kDeliveryStatus = 1u << 12;
// Six LVT entries, directed EOI [SDM-3A "Local APIC Version Register"].
constexpr u32 kVersionValue = 0x14 | 5u << 16 | 1u << 24;

constexpr bool is_lvt(u32 offset) { return offset >= kLvtTimer && offset <= kLvtError; }

// Bits of an LVT entry that software may set, delivery status and remote IRR (read-only) left out.
constexpr u32 lvt_mask(u32 offset) {
  switch (offset) {
    case kLvtTimer:
      return 0x700ff;
    case kLvt0:
    case kLvt1:
      return 0x1a7ff;
    case kLvtError:
      return 0x100ff;
    default:
      return 0x107ff;
  }
}

bool readable(u32 offset, bool x2apic) {
  switch (offset) {
    case kId:
    case kVersion:
    case kTaskPriority:
    case kProcessorPriority:
    case kLogicalDestination:
    case kSpurious:
    case kErrorStatus:
    case kCommand:
    case kInitialCount:
    case kCurrentCount:
    case kDivide:
      return true;
    case kArbitration:
    case kEoi:
    case kDestinationFormat:
    case kCommandHigh:
      return !x2apic;
    default:
      return (offset >= kIsr && offset < kErrorStatus) || is_lvt(offset);
  }
}

bool writable(u32 offset, bool x2apic) {
  switch (offset) {
    case kTaskPriority:
    case kEoi:
    case kSpurious:
    case kErrorStatus:
    case kCommand:
    case kInitialCount:
    case kDivide:
      return true;
    case kId:
    case kLogicalDestination:
    case kDestinationFormat:
    case kCommandHigh:
      return !x2apic;
    case kSelfIpi:
      return x2apic;
    default:
      return is_lvt(offset);
  }
}

// What WRMSR accepts in x2APIC mode; anything else is #GP [SDM-3A "x2APIC Register Address Space"].
u64 x2apic_mask(u32 offset) {
  switch (offset) {
    case kTaskPriority:
    case kSelfIpi:
      return 0xff;
    case kSpurious:
      return 0x13ff;
    case kEoi:
    case kErrorStatus:
      return 0;
    case kCommand:
      return 0xffffffff'000cdfff;
    case kInitialCount:
      return 0xffffffff;
    case kDivide:
      return 0xb;
    default:
      return lvt_mask(offset) | kDeliveryStatus | (1u << 14);
  }
}
}  // namespace

void Lapic::power_on_registers(bool init) {
  for (u32& word : regs_) word = 0;
  for (u32 offset = kLvtTimer; offset <= kLvtError; offset += 16) reg(offset) = kLvtMasked;
  // No firmware runs before the guest: we leave what firmware leaves, the 8259 as a virtual wire on the BSP.
  if (index == 0 && !init) reg(kLvt0) = 0x700;
  reg(kSpurious) = 0xff;
  reg(kDestinationFormat) = ~u32{0};
  reg(kVersion) = kVersionValue;
  errors_ = 0;
  tsc_deadline_ = 0;
  extint_latched_ = false;
  deadline_.store(kNever, std::memory_order_seq_cst);
  reg(kId) = index << 24;
  if (x2apic()) enter_x2apic();
}

void Lapic::reset(bool init) {
  const Change change{*this};
  if (!init) base_ = 0xfee00000 | kBaseEnable | (index == 0 ? kBaseBsp : 0);
  power_on_registers(init);
  waiting_for_sipi_.store(index != 0, std::memory_order_release);
  publish_page();
}

void Lapic::publish_page() {
  const bool mapped = enabled() && !x2apic();
  mmio_page_.store(mapped ? base() : kNever, std::memory_order_relaxed);
}

void Lapic::enter_x2apic() {
  reg(kId) = index;
  reg(kLogicalDestination) = (index >> 4) << 16 | 1u << (index & 15);
  reg(kDestinationFormat) = 0;
  reg(kCommandHigh) = 0;
}

// The transitions of [SDM-3A "x2APIC State Transitions"]: disabled <-> xAPIC -> x2APIC -> disabled, nothing else.
bool Lapic::write_base(u64 value) {
  const u64 address_bits = ((u64{1} << bus_.features.physical_bits) - 1) & ~u64{0xfff};
  const u64 allowed = address_bits | kBaseBsp | kBaseEnable | (bus_.features.x2apic ? kBaseX2apic : 0);
  if (value & ~allowed) return false;
  const Change change{*this};
  const u64 from = base_ & (kBaseEnable | kBaseX2apic), to = value & (kBaseEnable | kBaseX2apic);
  if (to == kBaseX2apic) return false;
  if (from == 0 && to == (kBaseEnable | kBaseX2apic)) return false;
  if (from == (kBaseEnable | kBaseX2apic) && to == kBaseEnable) return false;
  base_ = (value & ~kBaseBsp) | (base_ & kBaseBsp);
  if (to == 0 && from != 0) power_on_registers(true);
  if (to == (kBaseEnable | kBaseX2apic) && from != to) enter_x2apic();
  publish_page();
  return true;
}

bool Lapic::read_msr(u32 msr, u64& value) {
  if (msr == 0x1b) return value = base_, true;
  if (msr == 0x6e0) {
    FutexLock lock{mutex_};
    value = timer_mode() == TimerMode::kDeadline ? tsc_deadline_ : 0;
    return bus_.features.tsc_deadline;
  }
  const u32 offset = (msr & 0xff) << 4;
  if (!x2apic() || msr < 0x800 || msr > 0x83f || !readable(offset, true)) return false;
  FutexLock lock{mutex_};
  value = read_register(offset);
  if (offset == kCommand) value |= u64{reg(kCommandHigh)} << 32;
  return true;
}

bool Lapic::write_msr(u32 msr, u64 value) {
  if (msr == 0x1b) return write_base(value);
  if (msr == 0x6e0) {
    if (!bus_.features.tsc_deadline) return false;
    const Change change{*this};
    if (timer_mode() != TimerMode::kDeadline) return true;  // ignored [SDM-3A "TSC-Deadline Mode"]
    set_deadline(value);
    return true;
  }
  const u32 offset = (msr & 0xff) << 4;
  if (!x2apic() || msr < 0x800 || msr > 0x83f || !writable(offset, true)) return false;
  if (value & ~x2apic_mask(offset)) return false;
  return write_x2apic(offset, value);
}

bool Lapic::write_x2apic(u32 offset, u64 value) {
  const auto low = static_cast<u32>(value);
  if (offset == kEoi) {
    end_of_interrupt();
  } else if (offset == kSelfIpi) {
    send_ipi(low | 1u << 18, 0);
  } else {
    {
      const Change change{*this};
      if (offset == kCommand) reg(kCommandHigh) = static_cast<u32>(value >> 32);
      write_register(offset, low);
    }
    if (offset == kCommand) send_ipi(low, static_cast<u32>(value >> 32));
  }
  return true;
}

u32 Lapic::mmio_read(u32 offset) {
  if (offset & 0xf) return 0;
  if (offset >= 0x400 || !readable(offset, false)) {
    const Change change{*this};
    report_error(1u << 7);  // ESR: illegal register address
    return 0;
  }
  FutexLock lock{mutex_};
  return read_register(offset);
}

void Lapic::mmio_write(u32 offset, u32 value) {
  if (offset & 0xf) return;
  if (offset == kEoi) return end_of_interrupt();
  u32 destination = 0;
  {
    const Change change{*this};
    if (offset >= 0x400 || !writable(offset, false))
      report_error(1u << 7);
    else
      write_register(offset, value);
    destination = reg(kCommandHigh) >> 24;
  }
  if (offset == kCommand) send_ipi(value, destination == 0xff ? kBroadcast : destination);
}

u32 Lapic::read_register(u32 offset) {
  if (offset == kCurrentCount) return current_count();
  if (offset == kArbitration || offset == kEoi) return 0;
  return reg(offset);
}

void Lapic::write_register(u32 offset, u32 value) {
  if (is_lvt(offset)) return write_lvt(offset, value);
  switch (offset) {
    case kTaskPriority:
      reg(offset) = value & 0xff;
      break;
    case kLogicalDestination:
    case kCommandHigh:
      reg(offset) = x2apic() ? value : value & 0xff000000;
      break;
    case kDestinationFormat:
      reg(offset) = value | 0x0fffffff;
      break;
    case kSpurious:
      write_spurious(value);
      break;
    case kErrorStatus:
      reg(offset) = errors_;
      errors_ = 0;
      break;
    case kCommand:
      reg(offset) = value & ~kDeliveryStatus;
      break;
    case kInitialCount:
      if (timer_mode() == TimerMode::kDeadline) break;
      reg(offset) = value;
      start_count(value);
      break;
    case kDivide: {
      const u32 left = current_count();
      reg(offset) = value & 0xb;
      if (left != 0) start_count(left);
      break;
    }
    default:
      break;  // the ID is fixed
  }
}

// Off by software: every LVT entry is masked and stays so [SDM-3A "Local APIC State After It Has Been Software
// Disabled"].
void Lapic::write_spurious(u32 value) {
  reg(kSpurious) = value & 0x13ff;
  if (software_enabled()) return;
  for (u32 offset = kLvtTimer; offset <= kLvtError; offset += 16) reg(offset) |= kLvtMasked;
}

void Lapic::write_lvt(u32 offset, u32 value) {
  const TimerMode before = timer_mode();
  u32 entry = value & lvt_mask(offset);
  if (offset == kLvtTimer && !bus_.features.tsc_deadline) entry &= ~(2u << 17);
  if (!software_enabled()) entry |= kLvtMasked;
  reg(offset) = entry;
  if (offset != kLvtTimer || (before == TimerMode::kDeadline) == (timer_mode() == TimerMode::kDeadline)) return;
  reg(kInitialCount) = 0;
  tsc_deadline_ = 0;
  arm(kNever);
}

u8 Lapic::cr8() const { return static_cast<u8>(reg(kTaskPriority) >> 4); }

void Lapic::set_cr8(u8 priority) {
  const Change change{*this};
  reg(kTaskPriority) = u32{priority & 0xfu} << 4;
}

void Lapic::save(std::span<u8, 1024> page) const {
  FutexLock lock{mutex_};
  for (u32 i = 0; i < 1024; ++i) {
    const u32 offset = i & ~0xfu;
    const u32 word = offset == kCurrentCount ? current_count() : reg(offset);
    page[i] = (i & 0xf) < 4 ? static_cast<u8>(word >> (8 * (i & 3))) : u8{0};
  }
}

void Lapic::load(std::span<const u8, 1024> page, u64 apic_base, u64 tsc_deadline) {
  const Change change{*this};
  base_ = apic_base;
  for (u32 i = 0; i < 64; ++i) {
    u32 word = 0;
    for (u32 k = 0; k < 4; ++k) word |= u32{page[i * 16 + k]} << (8 * k);
    regs_[i] = word;
  }
  reg(kId) = x2apic() ? index : index << 24;
  reg(kVersion) = kVersionValue;
  errors_ = 0;
  arm(kNever);
  if (timer_mode() == TimerMode::kDeadline)
    set_deadline(tsc_deadline);
  else
    start_count(reg(kCurrentCount));
  publish_page();
}

}  // namespace bulkhead::engine::dbt
