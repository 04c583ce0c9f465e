#include <sys/random.h>

#include <fstream>
#include <sstream>

#include "net/open/lease.h"
#include "net/open/net_config.h"
#include "net/socket/joint.h"
#include "net/tap/device.h"
#include "net/tap/in_namespace.h"
#include "net/tap/stand_in.h"
#include "net/tap/tap.h"

namespace bulkhead::net {
namespace {

using Kind = NetConfig::Kind;

MacAddress random_mac() {
  MacAddress mac{};
  (void)!::getrandom(mac.data(), mac.size(), 0);
  mac[0] = static_cast<u8>((mac[0] & 0xfc) | 2);  // of one station, by nobody's registry
  return mac;
}

Result<Network> open_user(Network network) {
  NetConfig& config = network.config;
  config.user.ipv4 = config.user.ipv4 && has_default_route4();
  config.user.ipv6 = config.user.ipv6 && has_default_route6();
  if (!config.user.ipv4 && !config.user.ipv6)
    return fail("--net user: this host has no default route that it could use; use --net none");
  if (config.mtu == 0) config.mtu = config.user.mtu;
  config.user.mtu = config.mtu;
  const bool told = config.how == NetConfig::Addresses::kAuto && config.addresses.empty();
  const bool names = config.dns.empty();
  const auto add = [&](bool is_there, const char* address, const char* length, const char* gateway, const char* dns) {
    if (is_there && told) config.addresses.push_back(std::string{address} + length);
    if (is_there && told) config.gateways.emplace_back(gateway);
    if (is_there && names) config.dns.emplace_back(dns);
  };
  add(config.user.ipv4, kUserAddress4, "/24", kUserGateway4, kUserDns4);
  add(config.user.ipv6, kUserAddress6, "/64", kUserGateway6, kUserDns6);
  BH_ASSIGN(network.end, Passt::start(config.user, config.mac));
  return network;
}

constexpr u16 kJointMtu = 65500;

// In the device's namespace. What the zone is told of addresses is what the bridge has, where `bulkhead net` made it.
Result<void> open_tap_here(Network& network) {
  NetConfig& config = network.config;
  const bool bridged = config.kind == Kind::kBridge;
  if (bridged && !device_exists(config.name))
    return fail("--net bridge={}: there is no such bridge; `bulkhead net create {}` makes one", config.name,
                config.name);
  BH_ASSIGN(auto tap, Tap::open(bridged ? "bhtap%d" : config.name, config.queues));
  if (config.mtu == 0) {
    BH_ASSIGN(config.mtu, device_mtu(bridged ? config.name : tap->name()));
  }
  if (tap->made()) BH_TRY(set_device_mtu(tap->name(), config.mtu));
  if (bridged) BH_TRY(add_to_bridge(config.name, tap->name()));
  if (tap->made()) BH_TRY(set_device_up(tap->name()));
  if (bridged && config.how == NetConfig::Addresses::kAuto && config.addresses.empty())
    BH_TRY(take_address(network, addresses4(config.name)));
  const unsigned queues = tap->queue_count();
  network.end = std::move(tap);
  network.privileged = true;
  using InKernel = NetConfig::InKernel;
  if (config.vhost == InKernel::kOff || config.out.any() || config.in.any()) return {};
  auto vhost = Vhost::open(queues);
  if (vhost)
    network.vhost = std::move(*vhost);
  else if (config.vhost == InKernel::kOn)
    return fail("--net {}: vhost=on: {}", config.name, vhost.error().message);
  return {};
}

// The zone takes the device's place: its address on the link, its IP addresses and routes.
Result<void> stand_in_here(Network& network) {
  NetConfig& config = network.config;
  BH_ASSIGN(DeviceFacts facts, device_facts(config.name));
  BH_ASSIGN(auto tap, Tap::open("bhtap%d", config.queues));
  config.mac = facts.mac;
  config.mtu = facts.mtu;
  BH_TRY(set_device_mtu(tap->name(), config.mtu));
  BH_TRY(set_device_up(tap->name()));
  BH_TRY(join_devices(config.name, tap->name()));
  config.addresses = std::move(facts.addresses);
  config.gateways = std::move(facts.gateways);
  config.routes = std::move(facts.routes);
  network.end = std::move(tap);
  network.privileged = true;
  return {};
}

Result<Network> open_joint(Network network) {
  if (network.config.mtu == 0) network.config.mtu = kJointMtu;
  BH_ASSIGN(network.end, Joint::open(network.config.name));
  return network;
}

}  // namespace

Result<NetConfig> default_network() {
  NetConfig config;
  config.kind = Kind::kUser;
  if (!passt_is_installed())
    return fail(
        "the zone has no network: passt is not installed on this host; install the package passt, or say --net none");
  if (!has_default_route4() && !has_default_route6())
    return fail("the zone has no network: this host has no default route; say --net none, or which network");
  return config;
}

bool has_default_route4() {
  std::ifstream in{"/proc/net/route"};
  for (std::string line; std::getline(in, line);) {
    std::istringstream words{line};
    std::string device, destination, gateway, flags, references, use, metric, mask;
    if (words >> device >> destination >> gateway >> flags >> references >> use >> metric >> mask &&
        destination == "00000000" && mask == "00000000")
      return true;
  }
  return false;
}

bool has_default_route6() {
  std::ifstream in{"/proc/net/ipv6_route"};
  for (std::string line; std::getline(in, line);)
    // Destination, its prefix length, source, ...; the device is last, and "lo" has the one that refuses.
    if (line.starts_with("00000000000000000000000000000000 00 ") && !line.ends_with(" lo")) return true;
  return false;
}

Result<Network> open_network(NetConfig config, unsigned vcpus) {
  Network network;
  network.config = std::move(config);
  if (network.config.mac == MacAddress{}) network.config.mac = random_mac();
  if (network.config.queues == 0) network.config.queues = vcpus;
  if (network.config.kind == Kind::kUser) return open_user(std::move(network));
  if (network.config.kind == Kind::kSocket) return open_joint(std::move(network));
  auto opened = in_namespace(network.config.netns, [&] {
    return network.config.kind == Kind::kDevice ? stand_in_here(network) : open_tap_here(network);
  });
  if (!opened) return std::unexpected(std::move(opened.error()));
  return network;
}

Result<void> wait_until_ready(Network& network) {
  if (network.config.kind != Kind::kUser) return {};
  return static_cast<Passt&>(*network.end).wait_until_ready();
}

std::string Network::for_agent() const {
  std::string text = fmt::format("mac={} mtu={}", text_of(config.mac), config.mtu);
  if (config.how == NetConfig::Addresses::kDhcp) text += " dhcp=1";
  for (const std::string& address : config.addresses) text += " ip=" + address;
  for (const std::string& route : config.routes) text += " route=" + route;
  for (const std::string& gateway : config.gateways) text += " gw=" + gateway;
  for (const std::string& server : config.dns) text += " dns=" + server;
  return text;
}

}  // namespace bulkhead::net
