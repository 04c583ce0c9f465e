// virtio console device [virtio-1.3 §5.3]: one port, or several with the control queues (F_MULTIPORT).
// Fidelity: complete. Differing readers: Linux before 6.15 reads a resize message as rows, columns; we send columns,
// rows as [§5.3.6.2] says. One port alone has its size in the configuration space, which Linux always read correctly.
// Threads: whoever notifies (a vCPU) or calls back (a backend's thread) does the work, one at a time (SerialWork);
// nothing blocks. Bytes go between guest memory and backend without a copy of our own.
#pragma once
#include <optional>
#include <vector>

#include "device/core/console/console_core.h"
#include "device/core/work/serial_work.h"
#include "device/virtio/device.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

class VirtioConsole final : public VirtioDevice {
 public:
  static constexpr unsigned kMaxPorts = 30;  // two bits each in the work mask
  static constexpr u16 kPortQueueSize = 128, kControlQueueSize = 64;

  // `core` outlives us and has 1 to kMaxPorts ports. More than one, or one that is no console or has a name, makes the
  // device multiport.
  explicit VirtioConsole(ConsoleCore& core);
  ~VirtioConsole() override;

  u32 type() const override { return spec::virtio::kTypeConsole; }
  u64 features() const override;
  std::span<const u16> queue_sizes() const override { return queue_sizes_; }
  void read_config(u64 offset, std::span<std::byte> out) override;
  void write_config(u64 offset, std::span<const std::byte> in) override;
  void attach(DeviceHost& host, std::span<Queue> queues) override;
  void start(u64 features) override;
  void notify(unsigned index) override;
  void quiesced(const std::function<void()>& change) override { work_.exclusive(change); }
  void stop_queue(unsigned index) override;
  void reset() override;

  u64 ignored_control_messages() const { return ignored_control_.value(); }

 private:
  // Messages a port still has to send, in this order.
  enum Message : u8 { kAdd = 1, kConsole = 2, kName = 4, kOpen = 8, kResize = 16 };
  struct Port {
    std::optional<Chain> transmit, receive;    // held: not all taken yet; waiting for data
    bool ready = false;                        // the guest has set it up
    bool guest_open = false, closing = false;  // closing: told to the backend when transmit is empty
    bool sent_open = false;
    u32 sent_size = 0;
    u8 to_send = 0;  // set of Message
  };
  void work(u64 bits);
  void transmit(unsigned index);
  bool offer(unsigned index, Chain& chain);
  void receive(unsigned index);
  u32 fill(unsigned index, const Chain& chain);
  void read_control();
  void handle(const spec::virtio::console::Control& message);
  void set_guest_open(unsigned index, bool open);
  void check_attributes();
  void send_control();
  bool send_next(Port& port, unsigned index);
  std::vector<std::byte> message_bytes(Port& port, unsigned index, Message message) const;
  void signal(Queue& queue);
  Queue& receive_queue(unsigned port) { return queues_[port == 0 ? 0 : 2 * port + 2]; }
  Queue& transmit_queue(unsigned port) { return queues_[port == 0 ? 1 : 2 * port + 3]; }

  ConsoleCore& core_;
  const bool offers_multiport_;
  std::vector<u16> queue_sizes_;
  DeviceHost* host_ = nullptr;
  std::span<Queue> queues_;
  // The rest belongs to work_.
  bool started_ = false, multiport_ = false, sends_size_ = false;
  std::vector<Port> ports_;
  telemetry::Counter ignored_control_;
  SerialWork work_;
};

}  // namespace bulkhead::device::virtio
