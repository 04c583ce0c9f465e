// The control queues of a multiport console [virtio-1.3 §5.3.6.2]. What there is to say is kept as flags of each port
// and not as a queue, so that a guest that never listens costs nothing.
#include <bit>
#include <cstring>

#include "device/virtio/console/console.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio::console;

void VirtioConsole::read_control() {
  Queue& queue = queues_[kControlTransmit];
  do {
    queue.disable_notifications();
    while (std::optional<Chain> chain = queue.pop()) {
      Control message;
      const bool whole = chain->take(std::as_writable_bytes(std::span{&message, 1}));
      queue.push(std::move(*chain), 0);
      if (whole)
        handle(message);
      else
        queue.fault(Fault::kBadRequest);
    }
  } while (queue.enable_notifications());
  signal(queue);
}

void VirtioConsole::handle(const Control& message) {
  if (message.event == kDeviceReady) {
    for (Port& port : ports_) port.to_send |= message.value == 1 ? kAdd : 0;
    return;
  }
  if (message.id >= ports_.size()) return ignored_control_.add();
  Port& port = ports_[message.id];
  const ConsolePortSpec& spec = core_.port(message.id);
  if (message.event == kPortReady && message.value == 1) {
    port.ready = true;
    port.sent_open = core_.host_open(message.id);
    port.to_send |= (spec.is_console ? kConsole : 0) | (spec.name.empty() ? 0 : kName) | (port.sent_open ? kOpen : 0);
    check_attributes();
  } else if (message.event == kPortOpen) {
    set_guest_open(message.id, message.value != 0);
  } else {
    ignored_control_.add();
  }
}

void VirtioConsole::set_guest_open(unsigned index, bool open) {
  Port& port = ports_[index];
  if (open == port.guest_open) return;
  port.guest_open = open;
  if (open) {
    // Opened again before the backend heard of the close: it need not hear of either.
    if (!port.closing) core_.guest_open(index, true);
    port.closing = false;
    if (multiport_) receive(index);
    return;
  }
  port.closing = true;
  transmit(index);  // what was written before the close; it also tells the backend, when all is out
}

void VirtioConsole::check_attributes() {
  if (!multiport_) {
    // Without control queues the size is read from the configuration space [virtio-1.3 §5.3.4].
    if (const TerminalSize size = core_.size(); size.columns != 0) host_->config_changed();
    return;
  }
  const TerminalSize size = core_.size();
  const u32 packed = u32{size.columns} << 16 | size.rows;
  for (unsigned index = 0; index < ports_.size(); ++index) {
    Port& port = ports_[index];
    if (!port.ready) continue;
    if (core_.host_open(index) != port.sent_open) port.to_send |= kOpen;
    if (core_.port(index).is_console && sends_size_ && size.columns != 0 && packed != port.sent_size)
      port.to_send |= Message::kResize;
  }
}

void VirtioConsole::send_control() {
  for (unsigned index = 0; index < ports_.size(); ++index)
    while (ports_[index].to_send != 0)
      if (!send_next(ports_[index], index)) return signal(queues_[kControlReceive]);
  signal(queues_[kControlReceive]);
}

bool VirtioConsole::send_next(Port& port, unsigned index) {
  Queue& queue = queues_[kControlReceive];
  std::optional<Chain> chain = queue.pop();
  if (!chain && queue.enable_notifications()) chain = queue.pop();
  if (!chain) return false;  // the driver notifies when it gives us buffers
  const auto message = static_cast<Message>(1u << std::countr_zero(port.to_send));
  const std::vector<std::byte> bytes = message_bytes(port, index, message);
  const bool fits = chain->writable_bytes() >= bytes.size();
  const u64 written = fits ? chain->write(bytes) : 0;
  queue.push(std::move(*chain), static_cast<u32>(written));
  if (!fits) queue.fault(Fault::kBadRequest);
  port.to_send &= static_cast<u8>(~message);
  return true;
}

std::vector<std::byte> VirtioConsole::message_bytes(Port& port, unsigned index, Message message) const {
  Control control{.id = index, .event = 0, .value = 1};
  std::string tail;
  switch (message) {
    case kAdd:
      control.event = kDeviceAdd;
      break;
    case kConsole:
      control.event = kConsolePort;
      break;
    case kName:
      control.event = kPortName;
      tail = core_.port(index).name;
      break;
    case kOpen:
      control.event = kPortOpen;
      control.value = port.sent_open = core_.host_open(index);
      break;
    case Message::kResize: {
      control.event = spec::virtio::console::kResize;
      const TerminalSize size = core_.size();
      port.sent_size = u32{size.columns} << 16 | size.rows;
      const u16 pair[] = {size.columns, size.rows};
      tail.assign(reinterpret_cast<const char*>(pair), sizeof pair);
      break;
    }
  }
  std::vector<std::byte> bytes(sizeof control + tail.size());
  std::memcpy(bytes.data(), &control, sizeof control);
  std::memcpy(bytes.data() + sizeof control, tail.data(), tail.size());
  return bytes;
}

}  // namespace bulkhead::device::virtio
