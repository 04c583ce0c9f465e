// A network interface's driver in the guest, with rings as the public headers lay them out. One thread.
#pragma once
#include <stdint.h>
#include <string.h>
#include <xen/io/netif.h>

#include <atomic>

#include "device/xenbus/net/net_backend.h"
#include "device/xenbus/testing/frontend.h"

namespace bulkhead::device::xenbus::testing {

struct NetfrontOptions {
  unsigned queues = 1;
  bool split = true, sg = true, gso = true, checksum = true, copy = true;
};

struct NetfrontQueue {
  explicit NetfrontQueue(XenbusZone& of)
      : zone{of},
        out_page{of.grants.grant()},
        in_page{of.grants.grant()},
        out_port{of.events.allocate()},
        in_port{of.events.allocate()} {
    auto* const out_shared = reinterpret_cast<netif_tx_sring*>(of.grants.page(out_page));
    auto* const in_shared = reinterpret_cast<netif_rx_sring*>(of.grants.page(in_page));
    XEN_FRONT_RING_INIT(&out, out_shared, kPageSize);
    XEN_FRONT_RING_INIT(&in, in_shared, kPageSize);
  }
  template <class T>
  static T see(T& shared_index) {
    return std::atomic_ref{shared_index}.load();
  }
  template <class Entry>
  void put_out(const Entry& entry) {
    static_assert(sizeof(Entry) <= sizeof(netif_tx_request));
    memcpy(static_cast<void*>(RING_GET_REQUEST(&out, out.req_prod_pvt)), &entry, sizeof entry);
    ++out.req_prod_pvt;
  }
  void push_out() {
    std::atomic_ref{out.sring->req_prod}.store(out.req_prod_pvt);
    zone.events.raise(out_port);
  }
  // The next response; status 99: none for a very long time.
  netif_tx_response next_out() {
    while (see(out.sring->rsp_prod) == out.rsp_cons) {
      const u64 seen = zone.events.notifications(out_port);
      std::atomic_ref{out.sring->rsp_event}.store(out.rsp_cons + 1);
      if (see(out.sring->rsp_prod) == out.rsp_cons && !zone.events.await(out_port, seen)) return {0, 99};
    }
    netif_tx_response response;
    memcpy(&response, RING_GET_RESPONSE(&out, out.rsp_cons), sizeof response);
    ++out.rsp_cons;
    return response;
  }
  void offer(u32 reference, u16 id) {
    *RING_GET_REQUEST(&in, in.req_prod_pvt) = netif_rx_request{id, 0, reference};
    ++in.req_prod_pvt;
    std::atomic_ref{in.sring->req_prod}.store(in.req_prod_pvt);
    zone.events.raise(in_port);
  }
  netif_rx_response next_in() {
    while (see(in.sring->rsp_prod) == in.rsp_cons) {
      const u64 seen = zone.events.notifications(in_port);
      std::atomic_ref{in.sring->rsp_event}.store(in.rsp_cons + 1);
      if (see(in.sring->rsp_prod) == in.rsp_cons && !zone.events.await(in_port, seen)) return {0, 0, 0, 99};
    }
    return *RING_GET_RESPONSE(&in, in.rsp_cons++);
  }

  XenbusZone& zone;
  const u32 out_page, in_page, out_port, in_port;
  netif_tx_front_ring out;
  netif_rx_front_ring in;
};

class Netfront : public XenbusFrontend {
 public:
  explicit Netfront(XenbusZone& of, NetfrontOptions options = {}) : XenbusFrontend{of, "vif", 0}, options_{options} {}

  void prepare() {
    queues.clear();
    say("request-rx-copy", options_.copy);
    say("feature-sg", options_.sg);
    say("feature-gso-tcpv4", options_.gso);
    say("feature-gso-tcpv6", options_.gso);
    say("feature-no-csum-offload", !options_.checksum);
    say("feature-ipv6-csum-offload", options_.checksum);
    if (options_.queues > 1) say("multi-queue-num-queues", options_.queues);
    for (unsigned i = 0; i < options_.queues; ++i) {
      queues.push_back(std::make_unique<NetfrontQueue>(zone));
      const std::string prefix = options_.queues > 1 ? fmt::format("queue-{}/", i) : "";
      say(prefix + "tx-ring-ref", queues[i]->out_page);
      say(prefix + "rx-ring-ref", queues[i]->in_page);
      if (options_.split) {
        say(prefix + "event-channel-tx", queues[i]->out_port);
        say(prefix + "event-channel-rx", queues[i]->in_port);
      } else {
        say(prefix + "event-channel", queues[i]->out_port);
      }
    }
  }
  bool connect() {
    if (!await(State::kInitWait)) return false;
    prepare();
    say(State::kConnected);
    return await(State::kConnected);
  }

  std::vector<std::unique_ptr<NetfrontQueue>> queues;

 private:
  const NetfrontOptions options_;
};

}  // namespace bulkhead::device::xenbus::testing
