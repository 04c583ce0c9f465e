// ACPI tables: signatures, sizes, offsets and bits that the machine's tables use, and the ports of the fixed hardware.
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::acpi {

// Fixed hardware [acpi-6.5 §4.8.3 "PM1 Event, Control, Timer"]. These are system I/O ports of ours; PM1_CNT lies where
// PC chipsets in emulators have it, because small kernels write it blindly.
inline constexpr u16 kPm1ControlPort = 0x604;  // 2 ports
inline constexpr u16 kPm1EventPort = 0x608;    // status, 2 ports; enable, 2 ports
inline constexpr u16 kPmTimerPort = 0x60c;     // 4 ports
inline constexpr u64 kPmTimerHz = 3579545;
inline constexpr u16 kPmTimerStatus = 1 << 0;  // TMR_STS, TMR_EN
inline constexpr u16 kSciEnable = 1 << 0;      // PM1_CNT
inline constexpr u16 kPm1SleepEnable = 1 << 13;
inline constexpr unsigned kPm1SleepTypeShift = 10;
inline constexpr u16 kPm1SleepTypeMask = 7 << kPm1SleepTypeShift;
inline constexpr u8 kPm1SleepTypeS5 = 5;  // first element of \_S5

// Tables [acpi-6.5 §5.2].
inline constexpr u32 kRsdpSize = 36, kHeaderSize = 36, kFadtSize = 276, kFacsSize = 64, kFacsAlignment = 64;

// FADT flags [acpi-6.5 table 5.10].
inline constexpr u32 kWbinvd = 1 << 0, kProcC1 = 1 << 2, kNoPowerButton = 1 << 4, kNoSleepButton = 1 << 5,
                     kRtcWakeNotFixed = 1 << 6, kTimer32Bit = 1 << 8, kResetSupported = 1 << 10;
// IA-PC boot architecture flags [acpi-6.5 table 5.11].
inline constexpr u16 kLegacyDevices = 1 << 0, kNoVga = 1 << 2, kNoRtc = 1 << 5;

// MADT [acpi-6.5 §5.2.12].
inline constexpr u32 kPcAtCompatible = 1;
inline constexpr u8 kMadtLocalApic = 0, kMadtIoApic = 1, kMadtOverride = 2, kMadtLocalApicNmi = 4;
inline constexpr u16 kActiveHighLevel = 0x000d, kBusDefault = 0;

}  // namespace bulkhead::spec::acpi
