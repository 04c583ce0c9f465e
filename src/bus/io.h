// What a device sees of the guest's port and memory accesses, and what it may drive.
#pragma once
#include "base/ints.h"

namespace bulkhead {

enum class AccessSize : u8 { k1 = 1, k2 = 2, k4 = 4, k8 = 8 };
constexpr unsigned bytes_of(AccessSize size) { return static_cast<unsigned>(size); }

// A guest's mistake is an answer. For reads, `value` is what the guest gets; ignored reads give all ones.
struct IoReply {
  bool handled = false;
  u64 value = ~u64{0};
  static constexpr IoReply done() { return {true, 0}; }
  static constexpr IoReply data(u64 value) { return {true, value}; }
  static constexpr IoReply ignored() { return {}; }
};

// Offsets are from the start of the range that the device was attached at. The bus holds the device's lock for the
// whole access, so models hold no mutex against the vCPUs. Never blocks.
class IoDevice {
 public:
  virtual ~IoDevice() = default;
  virtual IoReply read(u64 offset, AccessSize size) = 0;
  virtual IoReply write(u64 offset, u64 value, AccessSize size) = 0;
};

// A level- or edge-triggered wire into the interrupt router. set() from any thread; must not block.
class IrqLine {
 public:
  virtual ~IrqLine() = default;
  virtual void set(bool asserted) = 0;
  void pulse() {
    set(true);
    set(false);
  }
};

// A message-signalled interrupt: a 32-bit write to 0xFEExxxxx [SDM-3A "Message Signalled Interrupts"].
struct Msi {
  u64 address = 0;
  u32 data = 0;
};

// Where messages go: the engine's interrupt controllers. From any thread.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void send(Msi message) = 0;
};

}  // namespace bulkhead
