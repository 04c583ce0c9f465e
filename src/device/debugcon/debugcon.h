// debugcon: port 0xe9; every byte written there is a character for the host, a read says that somebody listens.
// Source: the custom of Bochs ("port E9 hack"). Fidelity: complete.
// Runs on the vCPU that touched the port, under the bus lock; the backend's `writable` comes on any thread, hence a
// mutex of our own. What the backend does not take now is kept, up to kBufferLimit bytes; beyond that it is lost and
// counted.
#pragma once
#include <vector>

#include "base/sync.h"
#include "bus/io.h"
#include "device/byte_device.h"
#include "device/console_backend.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

class Debugcon final : private ByteRegisters {
 public:
  static constexpr u16 kPort = 0xe9;
  static constexpr u8 kReadback = 0xe9;
  static constexpr std::size_t kBufferLimit = 64 * 1024;

  explicit Debugcon(ConsoleBackend& backend);  // outlives us; must not call back while it holds a lock of its own
  ~Debugcon();
  Debugcon(const Debugcon&) = delete;
  Debugcon& operator=(const Debugcon&) = delete;

  ByteWindow& port() { return port_; }
  u64 dropped() const { return dropped_.value(); }  // bytes; any thread

 private:
  u8 read_byte(unsigned) override { return kReadback; }
  void write_byte(unsigned, u8 value) override;
  void flush() BH_REQUIRES(mutex_);

  ConsoleBackend& backend_;
  ByteWindow port_{*this, 0, 1};
  telemetry::Counter dropped_;
  Mutex mutex_;
  std::vector<std::byte> waiting_ BH_GUARDED_BY(mutex_);
};

}  // namespace bulkhead::device
