// Bits of the 16550A's registers [pc16550d "Registers"].
#pragma once
#include "base/ints.h"

namespace bulkhead::device::uart {

enum Register : unsigned {
  kData,
  kInterruptEnable,
  kInterruptId,
  kLineControl,
  kModemControl,
  kLineStatus,
  kModemStatus,
  kScratch
};
inline constexpr unsigned kFifoControl = kInterruptId;  // when written

// IER
inline constexpr u8 kEnableReceived = 0x01, kEnableThrEmpty = 0x02, kEnableLineStatus = 0x04, kEnableModemStatus = 0x08;
// IIR, highest priority first
inline constexpr u8 kIdLineStatus = 0x06, kIdReceived = 0x04, kIdTimeout = 0x0c, kIdThrEmpty = 0x02,
                    kIdModemStatus = 0x00, kIdNone = 0x01, kIdFifosOn = 0xc0;
// FCR
inline constexpr u8 kFifoEnable = 0x01, kClearReceiver = 0x02, kFifoKept = 0xc9;
// LCR
inline constexpr u8 kDivisorLatch = 0x80;
// MCR
inline constexpr u8 kDtr = 0x01, kRts = 0x02, kOut1 = 0x04, kOut2 = 0x08, kLoop = 0x10, kModemControlBits = 0x1f;
// LSR
inline constexpr u8 kDataReady = 0x01, kOverrun = 0x02, kThrEmpty = 0x20, kTransmitterEmpty = 0x40;
// MSR
inline constexpr u8 kDeltaCts = 0x01, kDeltaDsr = 0x02, kTrailingRing = 0x04, kDeltaDcd = 0x08, kCts = 0x10,
                    kDsr = 0x20, kRing = 0x40, kDcd = 0x80;

}  // namespace bulkhead::device::uart
