#include <sys/random.h>

#include <fstream>
#include <sstream>

#include "net/open/net_config.h"

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
  Network network{std::move(config), nullptr};
  if (network.config.mac == MacAddress{}) network.config.mac = random_mac();
  if (network.config.queues == 0) network.config.queues = vcpus;
  if (network.config.kind == Kind::kUser) return open_user(std::move(network));
  return fail("--net: this kind of network is not built yet");
}

Result<void> wait_until_ready(Network& network) {
  if (network.config.kind != Kind::kUser) return {};
  return static_cast<Passt&>(*network.end).wait_until_ready();
}

std::string Network::for_agent() const {
  std::string text = fmt::format("mac={} mtu={}", text_of(config.mac), config.mtu);
  if (config.how == NetConfig::Addresses::kDhcp) text += " dhcp=1";
  for (const std::string& address : config.addresses) text += " ip=" + address;
  for (const std::string& gateway : config.gateways) text += " gw=" + gateway;
  for (const std::string& server : config.dns) text += " dns=" + server;
  return text;
}

}  // namespace bulkhead::net
