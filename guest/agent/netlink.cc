#include "guest/agent/netlink.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace bulkhead::agent {
namespace {

struct Request {
  nlmsghdr header{};
  union {
    ifinfomsg link;
    ifaddrmsg address;
    rtmsg route;
  };
  char attributes[128];
};

template <class Part>
Request make(int type, int flags, Part Request::* part, const Part& value) {
  Request request;
  request.*part = value;
  request.header.nlmsg_len = NLMSG_LENGTH(sizeof value);
  request.header.nlmsg_type = static_cast<std::uint16_t>(type);
  request.header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  return request;
}

void attach(Request& request, int type, const void* data, unsigned size) {
  auto* const at = reinterpret_cast<rtattr*>(reinterpret_cast<char*>(&request) + NLMSG_ALIGN(request.header.nlmsg_len));
  at->rta_type = static_cast<std::uint16_t>(type);
  at->rta_len = static_cast<std::uint16_t>(RTA_LENGTH(size));
  memcpy(RTA_DATA(at), data, size);
  request.header.nlmsg_len = NLMSG_ALIGN(request.header.nlmsg_len) + RTA_LENGTH(size);
}

unsigned bytes_of(int family) { return family == AF_INET ? 4 : 16; }

}  // namespace

Netlink::Netlink() : socket_{socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)} {}
Netlink::~Netlink() { close(socket_); }

bool Netlink::ask(void* request) {
  const nlmsghdr& header = *static_cast<nlmsghdr*>(request);
  if (send(socket_, request, header.nlmsg_len, 0) < 0) return false;
  alignas(nlmsghdr) char answer[1024];
  const ssize_t size = recv(socket_, answer, sizeof answer, 0);
  if (size < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(nlmsgerr)))) return false;
  const auto* const verdict = static_cast<const nlmsgerr*>(NLMSG_DATA(reinterpret_cast<nlmsghdr*>(answer)));
  errno = -verdict->error;
  return verdict->error == 0 || verdict->error == -EEXIST;
}

bool Netlink::set_up(int device, std::uint32_t mtu) {
  ifinfomsg link{};
  link.ifi_index = device;
  if (mtu != 0) {
    Request request = make(RTM_NEWLINK, 0, &Request::link, link);
    attach(request, IFLA_MTU, &mtu, sizeof mtu);
    if (!ask(&request)) return false;
  }
  link.ifi_flags = link.ifi_change = IFF_UP;
  Request request = make(RTM_NEWLINK, 0, &Request::link, link);
  return ask(&request);
}

bool Netlink::add_address(int device, int family, const void* address, unsigned prefix, std::uint32_t seconds) {
  ifaddrmsg own{};
  own.ifa_family = static_cast<std::uint8_t>(family);
  own.ifa_prefixlen = static_cast<std::uint8_t>(prefix);
  own.ifa_index = static_cast<std::uint32_t>(device);
  own.ifa_flags = IFA_F_NODAD;  // who gave it to us knows that nobody else has it; asking around takes a second
  Request request = make(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &Request::address, own);
  attach(request, IFA_LOCAL, address, bytes_of(family));
  attach(request, IFA_ADDRESS, address, bytes_of(family));
  if (family == AF_INET && prefix < 31) {
    std::uint32_t broadcast;
    memcpy(&broadcast, address, sizeof broadcast);
    broadcast |= htonl(0xffffffffu >> prefix);
    attach(request, IFA_BROADCAST, &broadcast, sizeof broadcast);
  }
  if (seconds != 0) {
    const ifa_cacheinfo times{seconds, seconds, 0, 0};
    attach(request, IFA_CACHEINFO, &times, sizeof times);
  }
  return ask(&request);
}

bool Netlink::add_default_route(int device, int family, const void* gateway) {
  return add_route(device, family, nullptr, 0, gateway);
}

bool Netlink::add_route(int device, int family, const void* to, unsigned prefix, const void* gateway) {
  rtmsg route{};
  route.rtm_family = static_cast<std::uint8_t>(family);
  route.rtm_dst_len = static_cast<std::uint8_t>(prefix);
  route.rtm_table = RT_TABLE_MAIN;
  route.rtm_protocol = RTPROT_BOOT;
  route.rtm_scope = gateway != nullptr ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
  route.rtm_type = RTN_UNICAST;
  Request request = make(RTM_NEWROUTE, NLM_F_CREATE, &Request::route, route);
  if (prefix > 0) attach(request, RTA_DST, to, bytes_of(family));
  if (gateway != nullptr) attach(request, RTA_GATEWAY, gateway, bytes_of(family));
  attach(request, RTA_OIF, &device, sizeof device);
  return ask(&request);
}

}  // namespace bulkhead::agent
