// `--net`: what is asked for, and from there to an open packet end.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/end.h"
#include "net/limits.h"
#include "net/user/passt.h"
#include "net/vhost/vhost.h"

namespace bulkhead::net {

struct NetConfig {
  enum class Kind : u8 { kNone, kUser, kTap, kBridge, kSocket, kDevice };
  Kind kind = Kind::kNone;
  std::string name;     // the tap, the bridge, the socket's path, or the device whose place the zone takes
  std::string netns;    // tap, bridge: a network namespace by name or path; empty: ours
  MacAddress mac{};     // all zero: one that nobody else has
  u16 mtu = 0;          // 0: what the kind has
  unsigned queues = 0;  // queue pairs, at most; 0: one for each vCPU
  Limits out, in;       // from the zone, to the zone
  UserConfig user;
  // tap, bridge: whether the kernel's vhost-net carries the frames. kAuto: where it can, and nothing is asked for that
  // it cannot.
  enum class InKernel : u8 { kAuto, kOn, kOff };
  InKernel vhost = InKernel::kAuto;
  // In the zone.
  enum class Addresses : u8 { kAuto, kDhcp, kNone };  // kAuto: `addresses` if there are any, else as the kind has it
  Addresses how = Addresses::kAuto;
  std::vector<std::string> addresses;  // "192.0.2.7/24", "2001:db8::7/64"
  std::vector<std::string> gateways, dns;
  std::vector<std::string> routes;  // "10.2.0.0/16" on the link, "10.2.0.0/16@10.1.0.1" by a gateway
};

// "user", "tap=NAME,mtu=9000", ...; see docs/network.md. Errors: one line that names what is wrong.
Result<NetConfig> parse_net(const std::string& text);
// "8080:80", "127.0.0.1:8080:80", "5353:53/udp".
Result<PublishedPort> parse_port(const std::string& text);
Result<MacAddress> parse_mac(const std::string& text);

// An open network of a zone.
struct Network {
  NetConfig config;  // with what was open in it filled in: MAC, MTU, addresses
  std::unique_ptr<End> end;
  std::unique_ptr<Vhost> vhost;  // open, if it may be used
  UniqueFd lease;                // of an address that was chosen for it
  bool privileged = false;       // opening it took privilege that nobody needs any more
  // For the agent (guest/agent/start_request.h): "mac=... mtu=... ip=... gw=... dns=...".
  std::string for_agent() const;
};

// `vcpus`: how many queues are worth having. What takes its time goes on meanwhile: wait_until_ready() before the zone
// starts. Errors: what cannot be had, and what to do.
Result<Network> open_network(NetConfig config, unsigned vcpus);
Result<void> wait_until_ready(Network& network);

// What a zone has that was not asked for any: a user network. Errors: why there can be none here, and what to do.
Result<NetConfig> default_network();

// Whether this host has a default route: without one there is nothing for a user network to lead to.
bool has_default_route4();
bool has_default_route6();

}  // namespace bulkhead::net
