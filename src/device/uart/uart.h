// 16550A UART: a PC's serial port.        Source: [pc16550d "PC16550D Universal Asynchronous Receiver/Transmitter"]
// Fidelity: all registers, both FIFOs, all interrupts with their priorities, loopback. Time does not pass on the line:
// a byte is sent as soon as the host takes it, and the receiver's timeout comes at once instead of after four
// characters. Ignored: divisor and line parameters (kept, not acted on), break, and OUT2 as a gate of the interrupt
// line, since small kernels forget it. A FIFO reset by FCR discards received bytes only: sent ones count as being on
// the wire.
//
// Registers are touched by vCPUs under the bus lock, `readable`/`writable` of the backend come on any thread: the model
// has a mutex of its own. Order: uart, then the line. Never blocks: output that the host does not take is buffered,
// THR-empty is withheld when the buffer is nearly full, and a guest that writes on regardless loses bytes, which are
// counted.
#pragma once
#include <deque>
#include <vector>

#include "base/sync.h"
#include "bus/io.h"
#include "device/byte_device.h"
#include "device/console_backend.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

class Uart final : private ByteRegisters {
 public:
  static constexpr u16 kCom1 = 0x3f8;
  static constexpr u32 kCom1Irq = 4;
  static constexpr unsigned kPorts = 8;
  static constexpr std::size_t kFifoSize = 16;
  static constexpr std::size_t kOutputLimit = 4096;  // bytes waiting for the host

  // Both outlive us. The backend must not call back while it holds a lock that its read() or write() takes.
  Uart(ConsoleBackend& backend, IrqLine& irq);
  ~Uart();
  Uart(const Uart&) = delete;
  Uart& operator=(const Uart&) = delete;

  ByteWindow& ports() { return ports_; }  // attach 8 ports
  void reset();                           // any thread: as after the MR pin; waiting output is still delivered
  u64 dropped() const { return dropped_.value(); }  // output bytes lost; any thread

 private:
  u8 read_byte(unsigned index) override;
  void write_byte(unsigned index, u8 value) override;

  u8 read_data() BH_REQUIRES(mutex_);
  u8 read_interrupt_id() BH_REQUIRES(mutex_);
  u8 read_line_status() BH_REQUIRES(mutex_);
  u8 read_modem_status() BH_REQUIRES(mutex_);
  void write_data(u8 value) BH_REQUIRES(mutex_);
  void write_interrupt_enable(u8 value) BH_REQUIRES(mutex_);
  void write_fifo_control(u8 value) BH_REQUIRES(mutex_);
  void write_modem_control(u8 value) BH_REQUIRES(mutex_);

  void receive_loopback(u8 value) BH_REQUIRES(mutex_);
  void fill_receiver() BH_REQUIRES(mutex_);  // takes from the backend what there is room for
  void drain_output() BH_REQUIRES(mutex_);   // offers the backend what waits
  void transmitter_changed() BH_REQUIRES(mutex_);
  void update_modem_inputs() BH_REQUIRES(mutex_);
  void update_irq() BH_REQUIRES(mutex_);
  u8 interrupt_id() const BH_REQUIRES(mutex_);
  bool transmitter_ready() const BH_REQUIRES(mutex_);
  bool fifos_on() const BH_REQUIRES(mutex_);
  std::size_t receiver_size() const BH_REQUIRES(mutex_);
  std::size_t receiver_trigger() const BH_REQUIRES(mutex_);

  ConsoleBackend& backend_;
  IrqLine& irq_;
  ByteWindow ports_{*this, 0, kPorts};
  telemetry::Counter dropped_;

  Mutex mutex_;
  std::deque<u8> received_ BH_GUARDED_BY(mutex_);         // at most kFifoSize
  std::vector<std::byte> output_ BH_GUARDED_BY(mutex_);   // at most kOutputLimit
  bool ready_before_ BH_GUARDED_BY(mutex_) = true;        // transmitter_ready() when last looked at
  bool thr_empty_pending_ BH_GUARDED_BY(mutex_) = false;  // the THR-empty interrupt, until IIR is read or THR written
  bool overrun_ BH_GUARDED_BY(mutex_) = false;
  u8 ier_ BH_GUARDED_BY(mutex_) = 0;
  u8 fcr_ BH_GUARDED_BY(mutex_) = 0;
  u8 lcr_ BH_GUARDED_BY(mutex_) = 0;
  u8 mcr_ BH_GUARDED_BY(mutex_) = 0;
  u8 scratch_ BH_GUARDED_BY(mutex_) = 0;
  u8 divisor_low_ BH_GUARDED_BY(mutex_) = 0x0c;  // 9600 baud
  u8 divisor_high_ BH_GUARDED_BY(mutex_) = 0;
  u8 modem_inputs_ BH_GUARDED_BY(mutex_);      // MSR bits 7:4
  u8 modem_deltas_ BH_GUARDED_BY(mutex_) = 0;  // MSR bits 3:0
};

}  // namespace bulkhead::device
