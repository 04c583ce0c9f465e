// Xen's virtual network interface, the backend's half [xen/io/netif.h].
// Fidelity: copying receive, scatter-gather, checksum and TCP segmentation offload both ways (IPv4 and IPv6), several
// queues, split event channels. Missing: page flipping (which nobody uses), multicast control (all is passed on), the
// control ring (Linux's frontend does not know it).
// Threads: xenbus on the loop's; each queue on its own thread of the core.
// A frontend learns of a lost link in no way that this protocol has: its frames are dropped and counted.
#pragma once
#include <memory>
#include <vector>

#include "device/core/net/net_core.h"
#include "device/xenbus/bus/backend.h"
#include "device/xenbus/net/net_queue.h"

namespace bulkhead::device::xenbus {

class NetBackend final : public Backend, private NetRings {
 public:
  // `core`, `grants` and `events` outlive us. `index`: vif0 is the guest's eth0.
  NetBackend(NetCore& core, GrantPort& grants, EventPort& events, unsigned index);
  ~NetBackend() override { disconnect(); }

  std::string_view kind() const override { return "vif"; }
  Nodes backend_nodes() const override;
  Nodes frontend_nodes() const override;
  Nodes features() const override;
  Result<Nodes> connect(const NodeReader& frontend) override;
  void disconnect() override;

  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  Next next_out(unsigned pair, OutgoingFrame& frame) override { return queues_[pair]->next_out(frame); }
  void out_done(unsigned pair) override { queues_[pair]->out_done(); }
  Put put_in(unsigned pair, const net::FrameHeader& header, std::span<const std::byte> frame) override {
    return queues_[pair]->put_in(header, frame);
  }
  bool sleep_out(unsigned pair) override { return queues_[pair]->sleep_out(); }
  bool sleep_in(unsigned pair) override { return queues_[pair]->sleep_in(); }
  void signal(unsigned pair) override { queues_[pair]->signal(); }

  Result<std::unique_ptr<NetQueue>> open_queue(const NodeReader& frontend, const std::string& prefix, unsigned index,
                                               bool scatter);
  Result<std::unique_ptr<EventChannel>> bind(const NodeReader& frontend, const std::string& name, unsigned index);

  NetCore& core_;
  GrantPort& grants_;
  EventPort& events_;
  const unsigned index_;
  telemetry::CounterSet counters_{NetQueue::counter_names()};
  std::vector<std::unique_ptr<NetQueue>> queues_;  // changed only while the core is stopped
};

}  // namespace bulkhead::device::xenbus
