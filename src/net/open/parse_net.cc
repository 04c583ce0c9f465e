#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>

#include "block/throttle/throttle.h"
#include "net/open/net_config.h"

namespace bulkhead::net {
namespace {

constexpr unsigned kMaxQueues = 8, kMaxListed = 8;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

Result<u64> number(const std::string& text, u64 least, u64 most) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most)
    return fail("'{}' is not a number from {} to {}", text, least, most);
  return value;
}

bool is_address(const std::string& text) {
  in6_addr any{};
  return ::inet_pton(AF_INET, text.c_str(), &any) == 1 || ::inet_pton(AF_INET6, text.c_str(), &any) == 1;
}

Result<void> add_address(std::vector<std::string>& list, const std::string& text) {
  if (!is_address(text)) return fail("'{}' is not an IP address", text);
  if (list.size() >= kMaxListed) return fail("more than {} of them", kMaxListed);
  list.push_back(text);
  return {};
}

Result<void> set_ip(NetConfig& config, const std::string& text) {
  if (text == "dhcp" || text == "none") {
    config.how = text == "dhcp" ? NetConfig::Addresses::kDhcp : NetConfig::Addresses::kNone;
    return {};
  }
  const std::size_t slash = text.find('/');
  const std::string address = text.substr(0, slash);
  if (slash == std::string::npos || !is_address(address))
    return fail("'{}' is neither dhcp nor none nor an address like 192.0.2.7/24", text);
  BH_TRY(number(text.substr(slash + 1), 1, address.contains(':') ? 128 : 32));
  if (config.addresses.size() >= kMaxListed) return fail("more than {} addresses", kMaxListed);
  config.addresses.push_back(text);
  return {};
}

Result<void> set_switch(bool& to, const std::string& text) {
  if (text != "on" && text != "off") return fail("'{}' is neither on nor off", text);
  to = text == "on";
  return {};
}

Result<void> set_limit(BucketLimit& limit, const std::string& text) {
  BH_ASSIGN(limit.per_second, block::parse_amount(text));
  return {};
}

Result<void> set_vhost(NetConfig& config, const std::string& text) {
  using InKernel = NetConfig::InKernel;
  if (text != "on" && text != "off" && text != "auto") return fail("'{}' is none of on, off, auto", text);
  config.vhost = text == "on" ? InKernel::kOn : text == "off" ? InKernel::kOff : InKernel::kAuto;
  return {};
}

using Setter = std::function<Result<void>(NetConfig&, const std::string&)>;

const std::map<std::string, Setter>& options() {
  static const std::map<std::string, Setter> table = {
      {"mac",
       [](NetConfig& c, const std::string& v) -> Result<void> {
         BH_ASSIGN(c.mac, parse_mac(v));
         return {};
       }},
      {"mtu",
       [](NetConfig& c, const std::string& v) -> Result<void> {
         BH_ASSIGN(const u64 value, number(v, kMinMtu, kMaxMtu));
         c.mtu = static_cast<u16>(value);
         return {};
       }},
      {"queues",
       [](NetConfig& c, const std::string& v) -> Result<void> {
         BH_ASSIGN(const u64 value, number(v, 1, kMaxQueues));
         c.queues = static_cast<unsigned>(value);
         return {};
       }},
      {"ip", set_ip},
      {"gateway", [](NetConfig& c, const std::string& v) { return add_address(c.gateways, v); }},
      {"dns", [](NetConfig& c, const std::string& v) { return add_address(c.dns, v); }},
      {"out-bytes", [](NetConfig& c, const std::string& v) { return set_limit(c.out.bytes, v); }},
      {"out-packets", [](NetConfig& c, const std::string& v) { return set_limit(c.out.packets, v); }},
      {"in-bytes", [](NetConfig& c, const std::string& v) { return set_limit(c.in.bytes, v); }},
      {"in-packets", [](NetConfig& c, const std::string& v) { return set_limit(c.in.packets, v); }},
  };
  return table;
}

const std::map<std::string, Setter>& options_of(NetConfig::Kind kind) {
  static const std::map<std::string, Setter> none,
      user =
          {
              {"ipv4", [](NetConfig& c, const std::string& v) { return set_switch(c.user.ipv4, v); }},
              {"ipv6", [](NetConfig& c, const std::string& v) { return set_switch(c.user.ipv6, v); }},
              {"host-loopback", [](NetConfig& c, const std::string& v) { return set_switch(c.user.host_loopback, v); }},
          },
      device = {{"netns",
                 [](NetConfig& c, const std::string& v) -> Result<void> {
                   if (v.empty()) return fail("it is empty");
                   c.netns = v;
                   return {};
                 }},
                {"vhost", set_vhost}};
  switch (kind) {
    case NetConfig::Kind::kUser:
      return user;
    case NetConfig::Kind::kTap:
    case NetConfig::Kind::kBridge:
    case NetConfig::Kind::kDevice:
      return device;
    default:
      return none;
  }
}

Result<void> set_kind(NetConfig& config, const std::string& word) {
  using Kind = NetConfig::Kind;
  const std::size_t equals = word.find('=');
  const std::string kind = word.substr(0, equals);
  config.name = equals == std::string::npos ? "" : word.substr(equals + 1);
  const bool plain = kind == "none" || kind == "user";
  if (plain && equals != std::string::npos) return fail("'{}' takes no name", kind);
  if (kind == "none") config.kind = Kind::kNone;
  if (kind == "user") config.kind = Kind::kUser;
  if (plain) return {};
  if (kind == "tap" || kind == "bridge" || kind == "device") {
    config.kind = kind == "tap" ? Kind::kTap : kind == "bridge" ? Kind::kBridge : Kind::kDevice;
    const bool good = !config.name.empty() && config.name.size() < 16 && config.name != "." && config.name != ".." &&
                      std::ranges::all_of(config.name, [](unsigned char c) { return std::isgraph(c) && c != '/'; });
    if (!good) return fail("'{}' is no name of a network device", config.name);
    return {};
  }
  if (kind != "socket")
    return fail("'{}' is none of none, user, tap=NAME, bridge=NAME, device=NAME, socket=PATH", kind);
  config.kind = Kind::kSocket;
  if (config.name.empty() || config.name.size() > 107) return fail("'{}' is no path of a Unix socket", config.name);
  return {};
}

}  // namespace

Result<MacAddress> parse_mac(const std::string& text) {
  MacAddress mac{};
  const std::vector<std::string> parts = split(text, ':');
  bool good = parts.size() == mac.size();
  for (std::size_t i = 0; good && i < mac.size(); ++i) {
    const auto [end, error] = std::from_chars(parts[i].data(), parts[i].data() + parts[i].size(), mac[i], 16);
    good = error == std::errc{} && parts[i].size() == 2 && end == parts[i].data() + 2;
  }
  if (!good) return fail("'{}' is not a MAC address like 02:12:34:56:78:9a", text);
  if (is_multicast(mac) || mac == MacAddress{}) return fail("'{}' is not the address of one station", text);
  return mac;
}

Result<NetConfig> parse_net(const std::string& text) {
  NetConfig config;
  const std::vector<std::string> words = split(text, ',');
  BH_TRY(set_kind(config, words[0]));
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::size_t equals = words[i].find('=');
    const std::string name = words[i].substr(0, equals);
    const std::map<std::string, Setter>& own = options_of(config.kind);
    const auto found = own.contains(name) ? own.find(name) : options().find(name);
    if (found == options().end() || config.kind == NetConfig::Kind::kNone)
      return fail("the option '{}' is not known for '{}'", name, words[0]);
    if (equals == std::string::npos) return fail("the option '{}' needs a value: {}=...", name, name);
    if (auto set = found->second(config, words[i].substr(equals + 1)); !set)
      return fail("{}: {}", name, set.error().message);
  }
  if (config.how != NetConfig::Addresses::kAuto && !config.addresses.empty())
    return fail("ip: dhcp or none do not go with addresses");
  if (config.vhost == NetConfig::InKernel::kOn && (config.out.any() || config.in.any()))
    return fail("vhost=on: the kernel's vhost-net knows no limits; without them, or without vhost");
  return config;
}

Result<PublishedPort> parse_port(const std::string& text) {
  PublishedPort port;
  std::string rest = text;
  if (rest.ends_with("/udp")) port.udp = true;
  if (rest.ends_with("/udp") || rest.ends_with("/tcp")) rest.resize(rest.size() - 4);
  const std::size_t last = rest.rfind(':');
  if (last == std::string::npos) return fail("'{}' is not [ADDRESS:]HOST:GUEST with or without /udp", text);
  std::string host = rest.substr(0, last);
  if (const std::size_t before = host.rfind(':'); before != std::string::npos) {
    port.address = host.substr(0, before);
    host = host.substr(before + 1);
    if (port.address.starts_with('[') && port.address.ends_with(']'))
      port.address = port.address.substr(1, port.address.size() - 2);
    if (!is_address(port.address)) return fail("'{}': '{}' is not an IP address", text, port.address);
  }
  const auto from = number(host, 1, 65535), to = number(rest.substr(last + 1), 1, 65535);
  if (!from || !to) return fail("'{}': {}", text, (from ? to : from).error().message);
  port.host = static_cast<u16>(*from);
  port.guest = static_cast<u16>(*to);
  return port;
}

}  // namespace bulkhead::net
