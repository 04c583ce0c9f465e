// virtio network device [virtio-1.3 §5.1].
// Fidelity: queue pairs, mergeable buffers, checksums, TSO and USO both ways, control queue (receive filter, MAC, queue
// pairs, offloads), MTU, link status. Missing: RSS and hash reports (the host spreads flows by what the guest sends),
// VLAN filter (all tags pass), gratuitous announcements, coalescing of notifications.
// Threads: registers and the control queue on vCPUs; each queue pair on its own thread of the core.
#pragma once
#include <optional>
#include <vector>

#include "device/core/net/net_core.h"
#include "device/virtio/device.h"
#include "device/virtio/net/filter.h"
#include "net/vhost/vhost.h"
#include "spec/virtio.h"

namespace bulkhead::device::virtio {

class VirtioNet final : public VirtioDevice, private NetRings {
 public:
  static constexpr u16 kQueueSize = 256, kControlQueueSize = 64;
  static constexpr u64 kGuestOffloads = spec::virtio::net::kFeatureGuestChecksum |
                                        spec::virtio::net::kFeatureGuestTso4 | spec::virtio::net::kFeatureGuestTso6 |
                                        spec::virtio::net::kFeatureGuestEcn | spec::virtio::net::kFeatureGuestUso4 |
                                        spec::virtio::net::kFeatureGuestUso6;

  explicit VirtioNet(NetCore& core);  // `core` outlives us
  // The rings are the kernel's: what the guest may ask for is what vhost-net and the tap device can do, frames are
  // neither filtered nor counted here, and rings are split ones. For transports that have events. `vhost` and `memory`
  // outlive us.
  VirtioNet(NetCore& core, net::Vhost& vhost, const GuestMemory& memory);
  ~VirtioNet() override;

  u32 type() const override;
  u64 features() const override;
  std::span<const u16> queue_sizes() const override { return queue_sizes_; }
  void read_config(u64 offset, std::span<std::byte> out) override;
  void attach(DeviceHost& host, std::span<Queue> queues) override;
  void start(u64 features) override;
  void notify(unsigned index) override;
  void quiesced(const std::function<void()>& change) override { core_.paused(change); }
  void stop_queue(unsigned index) override;
  void reset() override;

  enum CounterIndex : u8 { kControlCommands, kControlRefused, kFiltered };
  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  struct Pair {
    std::optional<Chain> out;  // what next_out() gave
    std::vector<Chain> in;     // room that was found and not used yet
    u64 in_bytes = 0;
    bool out_quiet = false, in_quiet = false;  // the driver need not tell us
  };
  Next next_out(unsigned pair, OutgoingFrame& frame) override;
  void out_done(unsigned pair) override;
  Put put_in(unsigned pair, const net::FrameHeader& header, std::span<const std::byte> frame) override;
  bool sleep_out(unsigned pair) override;
  bool sleep_in(unsigned pair) override;
  void signal(unsigned pair) override;
  Put collect_room(unsigned pair, u64 bytes);
  void fill(unsigned pair, const net::FrameHeader& header, std::span<const std::byte> frame);

  void serve_control();
  bool command(Chain& chain);
  bool set_receive_mode(u8 which, Chain& chain);
  bool set_addresses(u8 which, Chain& chain);
  bool set_pairs(Chain& chain);
  bool set_offloads(Chain& chain);
  static net::Offloads in_offloads(u64 features);  // what a driver with these features takes

  Queue& in_queue(unsigned pair) { return queues_[2 * pair]; }
  Queue& out_queue(unsigned pair) { return queues_[2 * pair + 1]; }
  unsigned control_index() const;
  // ---- with vhost
  u64 kernel_features() const;
  void start_kernel();
  void pass_on(unsigned index);    // a notification that came here all the same
  void use_rings(unsigned pairs);  // those of the first ones
  void stop_ring(unsigned index);
  bool kernel_serves(unsigned index) const { return vhost_ != nullptr && vhost_->runs(index); }

  NetCore& core_;
  net::Vhost* const vhost_ = nullptr;
  const GuestMemory* const memory_ = nullptr;
  const std::vector<u16> queue_sizes_;
  std::vector<Pair> pairs_;
  DeviceHost* host_ = nullptr;
  std::span<Queue> queues_;
  telemetry::CounterSet counters_{{"control_commands", "control_refused", "filtered"}};
  // Changed only while the pairs are paused.
  bool started_ = false, mergeable_ = false;
  u64 features_ = 0;
  net::MacAddress mac_;  // as the driver has it
  ReceiveFilter filter_;
};

}  // namespace bulkhead::device::virtio
