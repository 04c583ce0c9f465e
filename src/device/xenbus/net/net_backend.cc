#include "device/xenbus/net/net_backend.h"

namespace bulkhead::device::xenbus {
namespace {

constexpr net::Offloads kOut = net::kChecksum | net::kTso4 | net::kTso6 | net::kTsoEcn;

// What the frontend says that it takes; a frontend of old takes IPv4 checksums without saying so.
net::Offloads accepted_by(const NodeReader& frontend) {
  if (frontend.flag("feature-no-csum-offload") || !frontend.flag("feature-ipv6-csum-offload")) return 0;
  net::Offloads all = net::kChecksum;
  if (!frontend.flag("feature-sg")) return all;
  if (frontend.flag("feature-gso-tcpv4")) all |= net::kTso4;
  if (frontend.flag("feature-gso-tcpv6")) all |= net::kTso6;
  return all;
}

}  // namespace

NetBackend::NetBackend(NetCore& core, GrantPort& grants, EventPort& events, unsigned index)
    : core_{core}, grants_{grants}, events_{events}, index_{index} {}

Nodes NetBackend::backend_nodes() const {
  return {{"handle", std::to_string(index_)},
          {"mac", net::text_of(core_.mac())},
          {"mtu", std::to_string(core_.mtu())},
          {"type", "vif"}};
}

Nodes NetBackend::frontend_nodes() const {
  return {{"handle", std::to_string(index_)}, {"mac", net::text_of(core_.mac())}, {"mtu", std::to_string(core_.mtu())}};
}

Nodes NetBackend::features() const {
  return {{"feature-rx-copy", "1"},
          {"feature-rx-flip", "0"},
          {"feature-sg", "1"},
          {"feature-gso-tcpv4", "1"},
          {"feature-gso-tcpv6", "1"},
          {"feature-ipv6-csum-offload", "1"},
          {"feature-split-event-channels", "1"},
          {"multi-queue-max-queues", std::to_string(core_.pair_count())}};
}

Result<std::unique_ptr<EventChannel>> NetBackend::bind(const NodeReader& frontend, const std::string& name,
                                                       unsigned index) {
  const std::optional<u32> port = frontend.number(name);
  if (!port) return fail("{} is no number", name);
  auto channel = events_.bind(*port, [this, index] { core_.kick_out(index); });
  if (channel == nullptr) return fail("{}: port {} is not there for us", name, *port);
  return channel;
}

Result<std::unique_ptr<NetQueue>> NetBackend::open_queue(const NodeReader& frontend, const std::string& prefix,
                                                         unsigned index, bool scatter) {
  GrantedPage rings[2];
  for (const bool in : {false, true}) {
    const std::string name = prefix + (in ? "rx-ring-ref" : "tx-ring-ref");
    const std::optional<u32> reference = frontend.number(name);
    if (!reference) return fail("{} is no number", name);
    rings[in] = GrantedPage{grants_, *reference, PageAccess::kWrite};
    if (!rings[in]) return fail("{}: reference {} is not granted to us", name, *reference);
  }
  auto queue = std::make_unique<NetQueue>(grants_, counters_, std::move(rings[0]), std::move(rings[1]), scatter);
  const bool split = frontend.text(prefix + "event-channel-tx").has_value();
  BH_ASSIGN(auto out, bind(frontend, prefix + (split ? "event-channel-tx" : "event-channel"), index));
  std::unique_ptr<EventChannel> in;
  if (split) {
    BH_ASSIGN(in, bind(frontend, prefix + "event-channel-rx", index));
  }
  queue->set_channels(std::move(out), std::move(in));
  return queue;
}

Result<Nodes> NetBackend::connect(const NodeReader& frontend) {
  disconnect();
  if (!frontend.flag("request-rx-copy")) return fail("the frontend wants pages flipped, and only copies are to be had");
  const u32 count = frontend.number("multi-queue-num-queues").value_or(1);
  if (count < 1 || count > core_.pair_count()) return fail("{} queues, not 1 to {}", count, core_.pair_count());
  const bool scatter = frontend.flag("feature-sg");
  std::vector<std::unique_ptr<NetQueue>> queues;
  for (u32 i = 0; i < count; ++i) {
    const std::string prefix = count == 1 ? "" : fmt::format("queue-{}/", i);
    BH_ASSIGN(auto queue, open_queue(frontend, prefix, i, scatter));
    queues.push_back(std::move(queue));
  }
  queues_ = std::move(queues);
  // Linux's frontend looks for the place of a checksum behind an untagged header only, and drops what is not there.
  core_.start(*this, count, kOut, accepted_by(frontend), NetCore::Tagged::kFinished);
  return Nodes{};
}

void NetBackend::disconnect() {
  core_.stop();
  queues_.clear();
}

}  // namespace bulkhead::device::xenbus
