// The far end of a serial line or a virtio-console port.
#pragma once
#include <functional>
#include <span>

#include "base/ints.h"

namespace bulkhead::device {

// Both directions may be used from different threads. Nothing here blocks: what does not fit is said by the count.
class ConsoleBackend {
 public:
  virtual ~ConsoleBackend() = default;
  // From guest. Returns how many bytes were taken; the device offers the rest again after set_writable's callback.
  virtual std::size_t write(std::span<const std::byte> data) = 0;
  // To guest. Returns how many bytes were put into `out`; 0 when there is nothing now.
  virtual std::size_t read(std::span<std::byte> out) = 0;
  // The device's callbacks, set once before use, called from any thread: `readable` when read() may yield something
  // again after it yielded 0; `writable` when write() may take something again after it took less than offered.
  virtual void set_callbacks(std::function<void()> readable, std::function<void()> writable) = 0;
  // The guest opened or closed its end (virtio-console ports only).
  virtual void guest_open(bool) {}
};

// A terminal's size, for virtio-console's resize event.
struct TerminalSize {
  u16 columns = 80, rows = 25;
};

// Random bytes for virtio-rng. Any thread; may block briefly.
class EntropySource {
 public:
  virtual ~EntropySource() = default;
  virtual void fill(std::span<std::byte> out) = 0;
};

}  // namespace bulkhead::device
