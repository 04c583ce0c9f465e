// The guest's consoles as one: output of UART, hvc0 and debugcon in the order it comes, input to that one of UART and
// hvc0 that spoke last.
#pragma once
#include <array>
#include <functional>
#include <string>

#include "base/sync.h"
#include "device/console_backend.h"
#include "zone/session/console_log.h"
#include "zone/session/wake.h"

namespace bulkhead::zone {

class ConsoleHub {
 public:
  static constexpr std::size_t kRoom = 64_KiB;  // each way

  ConsoleHub(Wake& wake, ConsoleLog& log);
  device::ConsoleBackend& uart() { return ends_[0]; }
  device::ConsoleBackend& hvc() { return ends_[1]; }
  device::ConsoleBackend& debugcon() { return ends_[2]; }

  // For the loop, which alone takes output and puts input.
  std::string output() const;  // a copy of what waits
  void consume_output(std::size_t bytes);
  std::size_t input_room() const;
  void put_input(std::span<const std::byte> bytes);  // at most input_room()
  void detach();                                     // before the machine goes: its callbacks are called no more
  void drop_output();                                // from now on: nobody reads it

 private:
  class End final : public device::ConsoleBackend {
   public:
    std::size_t write(std::span<const std::byte> data) override { return hub_->write(*this, data); }
    std::size_t read(std::span<std::byte> out) override { return hub_->read(*this, out); }
    void set_callbacks(std::function<void()> readable, std::function<void()> writable) override;
    ConsoleHub* hub_ = nullptr;
    std::function<void()> readable_, writable_;
    bool starved_ = false;  // it was refused bytes
  };
  std::size_t write(End& end, std::span<const std::byte> data);
  std::size_t read(End& end, std::span<std::byte> out);

  Wake& wake_;
  ConsoleLog& log_;
  std::array<End, 3> ends_;
  mutable Mutex mutex_;
  End* focus_ BH_GUARDED_BY(mutex_);
  std::string output_ BH_GUARDED_BY(mutex_), input_ BH_GUARDED_BY(mutex_);
  bool dropping_ BH_GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::zone
