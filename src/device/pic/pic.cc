#include "device/pic/pic.h"

#include <utility>

namespace bulkhead::device {
namespace {
constexpr unsigned kSpuriousPin = 7;
}

Pic::Pic(std::function<void(bool)> int_pin) : report_{std::move(int_pin)} {
  for (unsigned irq = 0; irq < kLines; ++irq) {
    lines_[irq].pic = this;
    lines_[irq].irq = irq;
  }
}

void Pic::set_line(unsigned irq, bool asserted) {
  if (irq == kCascade) return;
  Lock lock{mutex_};
  if (irq < 8)
    master_.set_input(irq, asserted);
  else
    slave_.set_input(irq - 8, asserted);
  update();
}

void Pic::update() {
  master_.set_input(kCascade, slave_.output());
  const bool high = master_.output();
  if (std::exchange(int_high_, high) != high) report_(high);
}

std::optional<u8> Pic::acknowledge() {
  Lock lock{mutex_};
  if (!int_high_) return std::nullopt;
  return interrupt_acknowledge();
}

u8 Pic::acknowledge_always() {
  Lock lock{mutex_};
  return interrupt_acknowledge();
}

u8 Pic::interrupt_acknowledge() {
  const auto pin = master_.pending();
  if (!pin) return master_.vector(kSpuriousPin);
  u8 vector = master_.vector(*pin);
  master_.acknowledge(*pin);
  if (master_.is_cascade(*pin)) {
    const auto slave_pin = slave_.pending();
    vector = slave_.vector(slave_pin.value_or(kSpuriousPin));
    if (slave_pin) slave_.acknowledge(*slave_pin);
  }
  update();
  return vector;
}

bool Pic::int_pin() const {
  Lock lock{mutex_};
  return int_high_;
}

void Pic::reset() {
  Lock lock{mutex_};
  master_.reset();
  slave_.reset();
  update();
}

u8 Pic::read_byte(unsigned index) {
  Lock lock{mutex_};
  if (index >= kElcr) return index == kElcr ? master_.level_pins() : slave_.level_pins();
  const u8 value = index < kSlave ? master_.read(index) : slave_.read(index - kSlave);
  update();  // a poll is an acknowledge
  return value;
}

void Pic::write_byte(unsigned index, u8 value) {
  Lock lock{mutex_};
  if (index == kElcr)
    master_.set_level_pins(value);
  else if (index > kElcr)
    slave_.set_level_pins(value);
  else if (index < kSlave)
    master_.write(index, value);
  else
    slave_.write(index - kSlave, value);
  update();
}

}  // namespace bulkhead::device
