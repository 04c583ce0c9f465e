// A console backend that a test holds in its hand: says how much it takes, and remembers.
#pragma once
#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "device/console_backend.h"

namespace bulkhead::device::testing {

// Single-threaded; the callbacks run on the thread that calls type() or set_room().
class FakeConsole final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> data) override {
    ++writes;
    const std::size_t taken = std::min(data.size(), room);
    output.append(reinterpret_cast<const char*>(data.data()), taken);
    if (room != kUnlimited) room -= taken;
    return taken;
  }
  std::size_t read(std::span<std::byte> out) override {
    const std::size_t given = std::min(out.size(), input.size());
    std::copy_n(reinterpret_cast<const std::byte*>(input.data()), given, out.begin());
    input.erase(0, given);
    return given;
  }
  void set_callbacks(std::function<void()> readable, std::function<void()> writable) override {
    readable_ = std::move(readable);
    writable_ = std::move(writable);
  }

  void type(std::string_view text) {
    input += text;
    readable_();
  }
  void set_room(std::size_t bytes) {
    room = bytes;
    if (bytes > 0) writable_();
  }

  static constexpr std::size_t kUnlimited = ~std::size_t{0};
  std::string output, input;
  std::size_t room = kUnlimited;
  u64 writes = 0;

 private:
  std::function<void()> readable_ = [] {}, writable_ = [] {};
};

}  // namespace bulkhead::device::testing
