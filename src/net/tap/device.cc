#include "net/tap/device.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bit>
#include <cstring>

#include "base/fd.h"

namespace bulkhead::net {
namespace {

ifreq request_for(const std::string& name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1));
  return request;
}

bool ask(unsigned long what, ifreq& request) {
  const UniqueFd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  return socket && ::ioctl(socket.get(), what, &request) == 0;
}

}  // namespace

bool device_exists(const std::string& name) { return ::if_nametoindex(name.c_str()) != 0; }

Result<u16> device_mtu(const std::string& name) {
  ifreq request = request_for(name);
  if (!ask(SIOCGIFMTU, request)) return fail_errno("reading the MTU of {}", name);
  return static_cast<u16>(std::min(request.ifr_mtu, 65535));
}

Result<void> set_device_mtu(const std::string& name, unsigned mtu) {
  ifreq request = request_for(name);
  request.ifr_mtu = static_cast<int>(mtu);
  if (!ask(SIOCSIFMTU, request)) return fail_errno("setting the MTU of {} to {}", name, mtu);
  return {};
}

Result<void> set_device_up(const std::string& name) {
  ifreq request = request_for(name);
  if (!ask(SIOCGIFFLAGS, request)) return fail_errno("reading the flags of {}", name);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (!ask(SIOCSIFFLAGS, request)) return fail_errno("setting {} up", name);
  return {};
}

Result<void> add_to_bridge(const std::string& bridge, const std::string& name) {
  ifreq request = request_for(bridge);
  request.ifr_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
  if (!ask(SIOCBRADDIF, request)) return fail_errno("adding {} to the bridge {} (is it one?)", name, bridge);
  return {};
}

Result<void> make_bridge(const std::string& name, const Address4& own) {
  const UniqueFd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!socket || ::ioctl(socket.get(), SIOCBRADDBR, name.c_str()) != 0)
    return fail_errno("making the bridge {} (this needs CAP_NET_ADMIN)", name);
  for (const auto& [what, value] :
       {std::pair{SIOCSIFADDR, own.address}, {SIOCSIFNETMASK, ~u32{0} << (32 - own.prefix)}}) {
    ifreq request = request_for(name);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(value);
    std::memcpy(&request.ifr_addr, &address, sizeof address);
    if (!ask(static_cast<unsigned long>(what), request))
      return fail_errno("giving the bridge {} the address {}/{}", name, text_of_address4(own.address), own.prefix);
  }
  return set_device_up(name);
}

Result<void> remove_bridge(const std::string& name) {
  ifreq request = request_for(name);
  if (!ask(SIOCGIFFLAGS, request)) return fail_errno("looking for the bridge {}", name);
  request.ifr_flags = static_cast<short>(request.ifr_flags & ~IFF_UP);
  if (!ask(SIOCSIFFLAGS, request)) return fail_errno("setting the bridge {} down (this needs CAP_NET_ADMIN)", name);
  const UniqueFd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!socket || ::ioctl(socket.get(), SIOCBRDELBR, name.c_str()) != 0)
    return fail_errno("removing the bridge {}", name);
  return {};
}

std::vector<Address4> addresses4(const std::string& name) {
  std::vector<Address4> all;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return all;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET || name != one->ifa_name) continue;
    sockaddr_in address{}, mask{};
    std::memcpy(&address, one->ifa_addr, sizeof address);
    std::memcpy(&mask, one->ifa_netmask, sizeof mask);
    all.push_back({ntohl(address.sin_addr.s_addr), static_cast<unsigned>(std::popcount(mask.sin_addr.s_addr))});
  }
  ::freeifaddrs(list);
  return all;
}

std::string text_of_address4(u32 address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, (address >> 16) & 255, (address >> 8) & 255, address & 255);
}

}  // namespace bulkhead::net
