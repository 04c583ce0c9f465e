#include "device/virtio/console/console.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using namespace spec::virtio::console;

namespace {

// The work mask: receive of port N is bit N, transmit is bit 30 + N, then the rest.
constexpr u64 receive_bit(unsigned port) { return u64{1} << port; }
constexpr u64 transmit_bit(unsigned port) { return u64{1} << (VirtioConsole::kMaxPorts + port); }
constexpr u64 kControlReceiveBit = u64{1} << 60, kControlTransmitBit = u64{1} << 61;
constexpr u64 kEmergencyBit = u64{1} << 62, kAttributesBit = u64{1} << 63;

// Completions after which the driver is told, so that it works while we go on.
constexpr unsigned kSignalEvery = 16;

bool needs_multiport(const ConsoleCore& core) {
  return core.port_count() > 1 || !core.port(0).is_console || !core.port(0).name.empty();
}

}  // namespace

VirtioConsole::VirtioConsole(ConsoleCore& core)
    : core_{core},
      offers_multiport_{needs_multiport(core)},
      queue_sizes_(offers_multiport_ ? 2 * core.port_count() + 2 : 2, kPortQueueSize),
      ports_(core.port_count()),
      work_{[this](u64 bits) { work(bits); }} {
  BH_ASSERT(core.port_count() >= 1 && core.port_count() <= kMaxPorts);
  if (offers_multiport_) queue_sizes_[kControlReceive] = queue_sizes_[kControlTransmit] = kControlQueueSize;
  core_.listen([this](unsigned port, ConsoleCore::Event event) {
    if (event == ConsoleCore::Event::kAttributes) return work_.post(kAttributesBit);
    const bool readable = event == ConsoleCore::Event::kReadable;
    work_.post(readable ? receive_bit(port) : transmit_bit(port) | kEmergencyBit);
  });
}

VirtioConsole::~VirtioConsole() { core_.listen({}); }

u64 VirtioConsole::features() const {
  return kFeatureSize | kFeatureEmergencyWrite | (offers_multiport_ ? kFeatureMultiport : 0);
}

void VirtioConsole::read_config(u64 offset, std::span<std::byte> out) {
  const TerminalSize size = core_.size();
  const console::Config config{size.columns, size.rows, core_.port_count(), 0};
  const auto bytes = std::as_bytes(std::span{&config, 1});
  for (std::size_t i = 0; i < out.size() && offset < bytes.size() && i < bytes.size() - offset; ++i)
    out[i] = bytes[offset + i];
}

void VirtioConsole::write_config(u64 offset, std::span<const std::byte> in) {
  if (offset != offsetof(console::Config, emerg_wr)) return;
  core_.emergency_write(in[0]);
  work_.post(kEmergencyBit);
}

void VirtioConsole::attach(DeviceHost& host, std::span<Queue> queues) {
  host_ = &host;
  queues_ = queues;
}

void VirtioConsole::start(u64 features) {
  work_.exclusive([&] {
    started_ = true;
    multiport_ = features & kFeatureMultiport;
    sends_size_ = features & kFeatureSize;
    if (!multiport_) set_guest_open(0, true);
  });
  work_.post(~u64{0});
}

void VirtioConsole::notify(unsigned index) {
  if (index == kControlReceive) return work_.post(kControlReceiveBit);
  if (index == kControlTransmit) return work_.post(kControlTransmitBit);
  const unsigned port = index < 2 ? 0 : (index - 2) / 2;
  work_.post(index % 2 == 0 ? receive_bit(port) : transmit_bit(port));
}

void VirtioConsole::stop_queue(unsigned index) {
  if (index == kControlReceive || index == kControlTransmit) return;
  Port& port = ports_[index < 2 ? 0 : (index - 2) / 2];
  std::optional<Chain>& held = index % 2 == 0 ? port.receive : port.transmit;
  if (!held) return;
  queues_[index].drop(std::move(*held));
  held.reset();
}

void VirtioConsole::reset() {
  started_ = multiport_ = sends_size_ = false;
  for (unsigned index = 0; index < ports_.size(); ++index) {
    const bool was_open = ports_[index].guest_open || ports_[index].closing;
    ports_[index] = Port{};
    if (was_open) core_.guest_open(index, false);
  }
}

void VirtioConsole::work(u64 bits) {
  if (bits & kEmergencyBit) core_.flush_emergency();
  if (!started_) return;
  // Output first: what the guest wrote before it closed a port must arrive before the close does.
  const unsigned count = multiport_ ? static_cast<unsigned>(ports_.size()) : 1;
  for (unsigned port = 0; port < count; ++port)
    if (bits & transmit_bit(port)) transmit(port);
  if (multiport_ && (bits & kControlTransmitBit)) read_control();
  if (bits & kAttributesBit) check_attributes();
  for (unsigned port = 0; port < count; ++port)
    if (bits & receive_bit(port)) receive(port);
  if (multiport_) send_control();
}

void VirtioConsole::signal(Queue& queue) {
  if (queue.interrupt_wanted()) host_->interrupt_used();
}

bool VirtioConsole::offer(unsigned index, Chain& chain) {
  while (!chain.readable().empty()) {
    const IoBuffer piece = chain.readable().front();
    const std::size_t taken = std::min<std::size_t>(core_.from_guest(index, {piece.data, piece.length}), piece.length);
    chain.skip(taken);
    if (taken < piece.length) return false;
  }
  return true;
}

void VirtioConsole::transmit(unsigned index) {
  Queue& queue = transmit_queue(index);
  Port& port = ports_[index];
  unsigned completed = 0;
  queue.disable_notifications();
  while (true) {
    if (!port.transmit) port.transmit = queue.pop();
    if (!port.transmit) {
      if (!queue.enable_notifications()) break;
      queue.disable_notifications();
      continue;
    }
    if (!offer(index, *port.transmit)) break;  // the rest when the backend calls; notifications stay off until then
    queue.push(std::move(*port.transmit), 0);
    port.transmit.reset();
    if (++completed % kSignalEvery == 0) signal(queue);
  }
  signal(queue);
  if (port.closing && !port.transmit) {
    port.closing = false;
    core_.guest_open(index, false);
  }
}

u32 VirtioConsole::fill(unsigned index, const Chain& chain) {
  u32 done = 0;
  for (const IoBuffer& buffer : chain.writable()) {
    const std::size_t got = std::min<std::size_t>(core_.to_guest(index, {buffer.data, buffer.length}), buffer.length);
    done += static_cast<u32>(got);
    if (got < buffer.length) break;
  }
  return done;
}

void VirtioConsole::receive(unsigned index) {
  Port& port = ports_[index];
  // Drivers throw away what comes for a port that nobody has open.
  if (!port.guest_open) return;
  Queue& queue = receive_queue(index);
  unsigned completed = 0;
  queue.disable_notifications();
  while (true) {
    if (!port.receive) port.receive = queue.pop();
    if (!port.receive) {
      if (!queue.enable_notifications()) break;
      queue.disable_notifications();
      continue;
    }
    const bool usable = port.receive->writable_bytes() > 0;
    const u32 filled = fill(index, *port.receive);
    if (filled == 0 && usable) break;  // nothing to say now: hold the buffer until the backend calls
    queue.push(std::move(*port.receive), filled);
    port.receive.reset();
    if (++completed % kSignalEvery == 0) signal(queue);
  }
  signal(queue);
}

}  // namespace bulkhead::device::virtio
