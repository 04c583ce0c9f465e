// The PC's pair of 8259A interrupt controllers, with the edge/level registers.
// Source: [i8259a], [ich "Edge/Level Control Registers"]. Fidelity: complete but for buffered mode and the 8080's call
// sequence (ICW1/ICW4 bits that a PC cannot use), and that a pulse shorter than INTA is kept. After reset all is
// masked, as firmware would leave it, because PVH guests start without firmware.
//
// Lines are driven from any thread, ports by vCPUs under the bus lock, acknowledge() by the vCPU that takes the
// interrupt: the model has a mutex of its own, held while `int_pin` runs. Order: device, pic, engine: `int_pin` may
// take the engine's locks, so acknowledge() is called with none of them held.
#pragma once
#include <array>
#include <functional>
#include <optional>

#include "base/sync.h"
#include "bus/io.h"
#include "device/byte_device.h"
#include "device/pic/pic_chip.h"

namespace bulkhead::device {

class Pic final : private ByteRegisters {
 public:
  static constexpr u16 kMasterPort = 0x20, kSlavePort = 0xa0, kElcrPort = 0x4d0;  // two ports each
  static constexpr unsigned kLines = 16;

  // `int_pin` hears of every change of the master's INT (first: low, not told). It must not call back into us.
  explicit Pic(std::function<void(bool high)> int_pin);

  ByteWindow& master() { return master_ports_; }
  ByteWindow& slave() { return slave_ports_; }
  ByteWindow& elcr() { return elcr_ports_; }
  IrqLine& line(unsigned irq) { return lines_[irq]; }  // 0..15; 2 is the cascade: driving it does nothing

  // INTA while INT is high: the vector, which may be the spurious one (pin 7 of either chip). Nothing when INT is low,
  // e.g. because the device withdrew since the vCPU was told.
  std::optional<u8> acknowledge();
  // INTA whatever INT says: when nothing is pending the master answers with its pin 7, as the chip does.
  u8 acknowledge_always();
  bool int_pin() const;

  void reset();

 private:
  enum Register : unsigned { kMaster = 0, kSlave = 2, kElcr = 4 };
  static constexpr unsigned kCascade = 2;

  class Line final : public IrqLine {
   public:
    void set(bool asserted) override { pic->set_line(irq, asserted); }
    Pic* pic = nullptr;
    unsigned irq = 0;
  };

  u8 read_byte(unsigned index) override;
  void write_byte(unsigned index, u8 value) override;
  void set_line(unsigned irq, bool asserted);
  u8 interrupt_acknowledge() BH_REQUIRES(mutex_);
  void update() BH_REQUIRES(mutex_);

  const std::function<void(bool)> report_;
  ByteWindow master_ports_{*this, kMaster, 2};
  ByteWindow slave_ports_{*this, kSlave, 2};
  ByteWindow elcr_ports_{*this, kElcr, 2};
  std::array<Line, kLines> lines_;

  mutable Mutex mutex_;
  PicChip master_ BH_GUARDED_BY(mutex_){0xf8, kCascade};
  PicChip slave_ BH_GUARDED_BY(mutex_){0xde, std::nullopt};
  bool int_high_ BH_GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::device
