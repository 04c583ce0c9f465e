#include "device/uart/uart.h"

#include <algorithm>
#include <array>
#include <utility>

#include "device/uart/registers.h"

namespace bulkhead::device {
using namespace uart;  // register names, this file only

namespace {
constexpr u8 kConnected = kCts | kDsr | kDcd;  // the far end is there and ready, always
}

Uart::Uart(ConsoleBackend& backend, IrqLine& irq) : backend_{backend}, irq_{irq}, modem_inputs_{kConnected} {
  backend_.set_callbacks(
      [this] {
        Lock lock{mutex_};
        fill_receiver();
        update_irq();
      },
      [this] {
        Lock lock{mutex_};
        drain_output();
        transmitter_changed();
        update_irq();
      });
}

Uart::~Uart() {
  backend_.set_callbacks([] {}, [] {});
}

void Uart::reset() {
  Lock lock{mutex_};
  received_.clear();
  ier_ = fcr_ = lcr_ = mcr_ = scratch_ = divisor_high_ = modem_deltas_ = 0;
  divisor_low_ = 0x0c;
  modem_inputs_ = kConnected;
  thr_empty_pending_ = overrun_ = false;
  ready_before_ = transmitter_ready();
  update_irq();
}

u8 Uart::read_byte(unsigned index) {
  Lock lock{mutex_};
  const bool divisor = lcr_ & kDivisorLatch;
  switch (index) {
    case kData:
      return divisor ? divisor_low_ : read_data();
    case kInterruptEnable:
      return divisor ? divisor_high_ : ier_;
    case kInterruptId:
      return read_interrupt_id();
    case kLineControl:
      return lcr_;
    case kModemControl:
      return mcr_;
    case kLineStatus:
      return read_line_status();
    case kModemStatus:
      return read_modem_status();
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void Uart::write_byte(unsigned index, u8 value) {
  Lock lock{mutex_};
  const bool divisor = lcr_ & kDivisorLatch;
  switch (index) {
    case kData:
      if (divisor)
        divisor_low_ = value;
      else
        write_data(value);
      break;
    case kInterruptEnable:
      if (divisor)
        divisor_high_ = value;
      else
        write_interrupt_enable(value);
      break;
    case kFifoControl:
      write_fifo_control(value);
      break;
    case kLineControl:
      lcr_ = value;
      break;
    case kModemControl:
      write_modem_control(value);
      break;
    case kScratch:
      scratch_ = value;
      break;
    default:
      break;  // LSR and MSR: writes are for factory tests
  }
}

u8 Uart::read_data() {
  u8 value = 0;
  if (!received_.empty()) {
    value = received_.front();
    received_.pop_front();
  }
  fill_receiver();
  update_irq();
  return value;
}

u8 Uart::read_interrupt_id() {
  const u8 id = interrupt_id();
  if (id == kIdThrEmpty) {  // only when it is the one reported
    thr_empty_pending_ = false;
    update_irq();
  }
  return id | (fifos_on() ? kIdFifosOn : 0);
}

u8 Uart::read_line_status() {
  u8 status = 0;
  if (!received_.empty()) status |= kDataReady;
  if (std::exchange(overrun_, false)) status |= kOverrun;
  if (transmitter_ready()) status |= kThrEmpty;
  if (output_.empty()) status |= kTransmitterEmpty;
  update_irq();
  return status;
}

u8 Uart::read_modem_status() {
  const u8 status = modem_inputs_ | std::exchange(modem_deltas_, u8{0});
  update_irq();
  return status;
}

void Uart::write_data(u8 value) {
  // The line must fall and rise for every emptied THR: the interrupt controller may look at edges only.
  thr_empty_pending_ = false;
  ready_before_ = false;
  update_irq();
  if (mcr_ & kLoop) {
    receive_loopback(value);
  } else if (output_.size() >= kOutputLimit) {
    dropped_.add();
  } else {
    output_.push_back(std::byte{value});
    if (output_.size() == 1) drain_output();  // otherwise `writable` is still owed to us
  }
  transmitter_changed();
  update_irq();
}

void Uart::write_interrupt_enable(u8 value) {
  value &= 0x0f;
  // Enabling the THR-empty interrupt while THR is empty raises it at once; drivers start their output that way.
  if ((value & ~ier_ & kEnableThrEmpty) && transmitter_ready()) thr_empty_pending_ = true;
  if (!(value & kEnableThrEmpty)) thr_empty_pending_ = false;
  ier_ = value;
  update_irq();
}

void Uart::write_fifo_control(u8 value) {
  const bool switched = (value ^ fcr_) & kFifoEnable;
  if (switched || ((value & kFifoEnable) && (value & kClearReceiver))) received_.clear();
  fcr_ = (value & kFifoEnable) ? value & kFifoKept : 0;  // without FIFOs the other bits cannot be written
  fill_receiver();
  update_irq();
}

void Uart::write_modem_control(u8 value) {
  mcr_ = value & kModemControlBits;
  update_modem_inputs();
  fill_receiver();  // leaving loopback reconnects the line
  update_irq();
}

void Uart::update_modem_inputs() {
  u8 now = kConnected;
  if (mcr_ & kLoop) {
    now = 0;
    if (mcr_ & kRts) now |= kCts;
    if (mcr_ & kDtr) now |= kDsr;
    if (mcr_ & kOut1) now |= kRing;
    if (mcr_ & kOut2) now |= kDcd;
  }
  const u8 changed = now ^ modem_inputs_;
  if (changed & kCts) modem_deltas_ |= kDeltaCts;
  if (changed & kDsr) modem_deltas_ |= kDeltaDsr;
  if (changed & kDcd) modem_deltas_ |= kDeltaDcd;
  if (changed & modem_inputs_ & kRing) modem_deltas_ |= kTrailingRing;
  modem_inputs_ = now;
}

void Uart::receive_loopback(u8 value) {
  if (received_.size() < receiver_size()) return received_.push_back(value);
  overrun_ = true;
  if (!fifos_on()) received_.back() = value;  // RBR is overwritten; a full FIFO keeps what it has
}

void Uart::fill_receiver() {
  if (mcr_ & kLoop) return;  // disconnected; what the host has stays there
  while (received_.size() < receiver_size()) {
    std::array<std::byte, kFifoSize> chunk;
    const std::size_t room = receiver_size() - received_.size();
    const std::size_t count = std::min(room, backend_.read(std::span{chunk}.first(room)));
    if (count == 0) return;
    for (std::size_t i = 0; i < count; ++i) received_.push_back(static_cast<u8>(chunk[i]));
  }
}

void Uart::drain_output() {
  while (!output_.empty()) {
    const std::size_t taken = std::min(output_.size(), backend_.write(output_));
    if (taken == 0) return;
    output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(taken));
  }
}

void Uart::transmitter_changed() {
  const bool ready = transmitter_ready();
  if (ready && !ready_before_ && (ier_ & kEnableThrEmpty)) thr_empty_pending_ = true;
  ready_before_ = ready;
}

// THR empty promises room for a whole FIFO: drivers write 16 bytes on the strength of one look.
bool Uart::transmitter_ready() const { return output_.size() + kFifoSize <= kOutputLimit; }
bool Uart::fifos_on() const { return fcr_ & kFifoEnable; }
std::size_t Uart::receiver_size() const { return fifos_on() ? kFifoSize : 1; }
std::size_t Uart::receiver_trigger() const {
  static constexpr std::array<std::size_t, 4> kTriggers{1, 4, 8, 14};
  return fifos_on() ? kTriggers[fcr_ >> 6] : 1;
}

u8 Uart::interrupt_id() const {
  if ((ier_ & kEnableLineStatus) && overrun_) return kIdLineStatus;
  if ((ier_ & kEnableReceived) && !received_.empty())
    return received_.size() >= receiver_trigger() ? kIdReceived : kIdTimeout;
  if ((ier_ & kEnableThrEmpty) && thr_empty_pending_) return kIdThrEmpty;
  if ((ier_ & kEnableModemStatus) && modem_deltas_ != 0) return kIdModemStatus;
  return kIdNone;
}

void Uart::update_irq() { irq_.set(interrupt_id() != kIdNone); }

}  // namespace bulkhead::device
