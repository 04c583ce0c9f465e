#include "device/acpi_pm/acpi_pm.h"

#include <cstring>
#include <utility>

#include "base/bits.h"
#include "spec/acpi.h"

namespace bulkhead::device {
namespace {
namespace acpi = spec::acpi;

constexpr unsigned kControl = 0;
constexpr unsigned kStatus = acpi::kPm1EventPort - acpi::kPm1ControlPort;
constexpr unsigned kEnable = kStatus + 2;
constexpr unsigned kTimer = acpi::kPmTimerPort - acpi::kPm1ControlPort;
constexpr u16 kKeptControl = acpi::kPm1SleepTypeMask | 0x2;  // SLP_TYP and BM_RLD

bool touches(u64 offset, unsigned size, unsigned reg) { return offset < reg + 2 && reg < offset + size; }
}  // namespace

AcpiPm::AcpiPm(const Clock& clock, IrqLine& sci, std::function<void()> power_off)
    : clock_{clock}, sci_{sci}, power_off_{std::move(power_off)}, timer_top_{bit(timer(), 31)} {}

u32 AcpiPm::timer() const { return static_cast<u32>(u128{clock_.now()} * acpi::kPmTimerHz / 1'000'000'000); }

void AcpiPm::look_at_timer() {
  const bool top = bit(timer(), 31);
  if (std::exchange(timer_top_, top) != top) status_ |= acpi::kPmTimerStatus;
  sci_.set((status_ & enable_) != 0);
}

AcpiPm::Registers AcpiPm::registers() const {
  Registers all;
  all.fill(0xff);
  const u16 control = control_ | acpi::kSciEnable;
  const u32 now = timer();
  std::memcpy(&all[kControl], &control, 2);
  std::memcpy(&all[kStatus], &status_, 2);
  std::memcpy(&all[kEnable], &enable_, 2);
  std::memcpy(&all[kTimer], &now, 4);
  return all;
}

IoReply AcpiPm::read(u64 offset, AccessSize size) {
  if (!range_within(offset, bytes_of(size), kPorts)) return IoReply::ignored();
  look_at_timer();
  u64 value = 0;
  std::memcpy(&value, registers().data() + offset, bytes_of(size));
  return IoReply::data(value);
}

IoReply AcpiPm::write(u64 offset, u64 value, AccessSize size) {
  const unsigned length = bytes_of(size);
  if (!range_within(offset, length, kPorts)) return IoReply::ignored();
  look_at_timer();
  // Bytes that the access does not reach keep their value; of status they write zeros, which keep it as well.
  Registers all = registers();
  std::memset(&all[kStatus], 0, 2);
  std::memcpy(all.data() + offset, &value, length);
  u16 control, status;
  std::memcpy(&control, &all[kControl], 2);
  std::memcpy(&status, &all[kStatus], 2);
  std::memcpy(&enable_, &all[kEnable], 2);
  status_ &= static_cast<u16>(~status);
  sci_.set((status_ & enable_) != 0);
  if (touches(offset, length, kControl)) control_written(control);
  return IoReply::done();
}

void AcpiPm::control_written(u16 value) {
  control_ = value & kKeptControl;
  if ((value & acpi::kPm1SleepEnable) == 0) return;
  const unsigned type = (value & acpi::kPm1SleepTypeMask) >> acpi::kPm1SleepTypeShift;
  if (type != acpi::kPm1SleepTypeS5 && type != 0) return;
  if (!std::exchange(off_, true)) power_off_();
}

}  // namespace bulkhead::device
