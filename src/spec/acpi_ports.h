// The I/O ports by which a guest powers off and resets, shared by device/power (which answers) and the machine's ACPI
// tables [acpi-6.5 §4.8.3.7 "Sleep Control and Status Registers", §4.8.3.6 "Reset Register"]. The tables announce the
// reset register and, for power-off, the PM1 block of spec/acpi.h: on a hardware-reduced platform, the only one where
// the sleep registers count, Linux would do without PIC, PIT and RTC. The sleep registers stay for small kernels.
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::acpi {

// SLEEP_CONTROL_REG and SLEEP_STATUS_REG of the FADT: system I/O, 8 bits wide each.
inline constexpr u16 kSleepControlPort = 0x600;
inline constexpr u16 kSleepStatusPort = 0x601;

// SLEEP_CONTROL: SLP_TYP is bits 4:2, SLP_EN (write-only, reads as 0) is bit 5.
inline constexpr unsigned kSleepTypeShift = 2;
inline constexpr u8 kSleepTypeMask = 0x1c;
inline constexpr u8 kSleepEnable = 0x20;
// SLEEP_STATUS: WAK_STS is bit 7, cleared by writing 1.
inline constexpr u8 kWakeStatus = 0x80;
// SLP_TYP of soft-off: the first element of \_S5 in the DSDT.
inline constexpr u8 kSleepTypeS5 = 5;

// RESET_REG and RESET_VALUE of the FADT: system I/O, 8 bits wide. The port and bits are those of the reset control
// register of PC chipsets, so that a guest which knows only that one resets as well.
inline constexpr u16 kResetPort = 0xcf9;
inline constexpr u8 kResetValue = 0x06;
inline constexpr u8 kResetCpu = 0x04;  // the bit whose writing resets

// The keyboard controller's command port: there is no keyboard, but "pulse the reset line" is the oldest way to reset.
inline constexpr u16 kKeyboardCommandPort = 0x64;
inline constexpr u8 kKeyboardPulseReset = 0xfe;

}  // namespace bulkhead::spec::acpi
