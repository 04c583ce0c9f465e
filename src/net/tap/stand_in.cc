#include "net/tap/stand_in.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <sys/socket.h>

#include <bit>
#include <cstring>
#include <functional>

#include "base/fd.h"
#include "net/tap/device.h"

namespace bulkhead::net {
namespace {

// A request under construction: header, a fixed part, attributes in attributes.
class Request {
 public:
  template <class Fixed>
  Request(u16 type, u16 flags, const Fixed& fixed) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<u16>(NLM_F_REQUEST | flags);
    append(&header, sizeof header);
    append(&fixed, sizeof fixed);
  }
  void add(u16 type, const void* data, std::size_t size) {
    const rtattr header{static_cast<u16>(RTA_LENGTH(size)), type};
    append(&header, sizeof header);
    append(data, size);
  }
  void add(u16 type, const char* text) { add(type, text, std::strlen(text) + 1); }
  // What is added meanwhile is inside.
  void nest(u16 type, const std::function<void()>& inside) {
    const std::size_t start = bytes_.size();
    add(type, nullptr, 0);
    inside();
    const auto length = static_cast<u16>(bytes_.size() - start);
    std::memcpy(bytes_.data() + start, &length, sizeof length);
  }
  std::string& finish() {
    const auto length = static_cast<u32>(bytes_.size());
    std::memcpy(bytes_.data(), &length, sizeof length);
    return bytes_;
  }

 private:
  void append(const void* data, std::size_t size) {
    if (size > 0) bytes_.append(static_cast<const char*>(data), size);
    bytes_.resize((bytes_.size() + 3) & ~std::size_t{3});
  }
  std::string bytes_;
};

UniqueFd open_netlink() { return UniqueFd{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)}; }

// True when the kernel did it; otherwise errno says why not.
bool ask(Request& request) {
  const UniqueFd socket = open_netlink();
  const std::string& bytes = request.finish();
  if (!socket || ::send(socket.get(), bytes.data(), bytes.size(), 0) < 0) return false;
  alignas(nlmsghdr) char answer[4096];
  const ssize_t size = ::recv(socket.get(), answer, sizeof answer, 0);
  if (size < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(nlmsgerr)))) return false;
  nlmsgerr verdict{};
  std::memcpy(&verdict, answer + NLMSG_HDRLEN, sizeof verdict);
  errno = -verdict.error;
  return verdict.error == 0;
}

tcmsg ingress_of(unsigned device) {
  tcmsg message{};
  message.tcm_family = AF_UNSPEC;
  message.tcm_ifindex = static_cast<int>(device);
  message.tcm_handle = TC_H_MAKE(TC_H_INGRESS, 0);
  message.tcm_parent = TC_H_INGRESS;
  return message;
}

Result<void> redirect(const std::string& from, const std::string& to) {
  const unsigned source = ::if_nametoindex(from.c_str()), target = ::if_nametoindex(to.c_str());
  if (source == 0 || target == 0) return fail_errno("looking for the network devices {} and {}", from, to);
  Request old{RTM_DELQDISC, NLM_F_ACK, ingress_of(source)};
  ask(old);  // of one who stood here before
  Request queue{RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, ingress_of(source)};
  queue.add(TCA_KIND, "ingress");
  if (!ask(queue)) return fail_errno("giving {} an ingress queue (this needs CAP_NET_ADMIN and sch_ingress)", from);
  tcmsg place = ingress_of(source);
  place.tcm_handle = 0;
  place.tcm_parent = TC_H_MAKE(TC_H_INGRESS, 0);
  place.tcm_info = TC_H_MAKE(1u << 16, htons(ETH_P_ALL));
  Request filter{RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, place};
  filter.add(TCA_KIND, "u32");
  filter.nest(TCA_OPTIONS, [&] {
    // One key that every frame has: no bits of its first word.
    alignas(tc_u32_sel) char storage[sizeof(tc_u32_sel) + sizeof(tc_u32_key)] = {};
    auto* const selector = new (storage) tc_u32_sel{};
    selector->flags = TC_U32_TERMINAL;
    selector->nkeys = 1;
    filter.add(TCA_U32_SEL, storage, sizeof storage);
    filter.nest(TCA_U32_ACT, [&] {
      filter.nest(1, [&] {
        filter.add(TCA_ACT_KIND, "mirred");
        filter.nest(TCA_ACT_OPTIONS, [&] {
          tc_mirred parameters{};
          parameters.action = TC_ACT_STOLEN;
          parameters.eaction = TCA_EGRESS_REDIR;
          parameters.ifindex = target;
          filter.add(TCA_MIRRED_PARMS, &parameters, sizeof parameters);
        });
      });
    });
  });
  if (!ask(filter)) return fail_errno("redirecting {} to {} (this needs act_mirred and cls_u32)", from, to);
  return {};
}

// ---- what a device has

std::string text_of_address(int family, const void* address) {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(family, address, text, sizeof text);
  return text;
}

void add_address(const ifaddrs& one, DeviceFacts& out) {
  if (one.ifa_addr->sa_family == AF_PACKET) {
    sockaddr_ll link{};
    std::memcpy(&link, one.ifa_addr, sizeof link);
    std::memcpy(out.mac.data(), link.sll_addr, out.mac.size());
  }
  if (one.ifa_addr->sa_family == AF_INET) {
    sockaddr_in address{}, mask{};
    std::memcpy(&address, one.ifa_addr, sizeof address);
    std::memcpy(&mask, one.ifa_netmask, sizeof mask);
    out.addresses.push_back(
        fmt::format("{}/{}", text_of_address(AF_INET, &address.sin_addr), std::popcount(mask.sin_addr.s_addr)));
  }
  if (one.ifa_addr->sa_family != AF_INET6) return;
  sockaddr_in6 address{}, mask{};
  std::memcpy(&address, one.ifa_addr, sizeof address);
  std::memcpy(&mask, one.ifa_netmask, sizeof mask);
  if (IN6_IS_ADDR_LINKLOCAL(&address.sin6_addr)) return;
  int bits = 0;
  for (const u8 byte : mask.sin6_addr.s6_addr) bits += std::popcount(byte);
  out.addresses.push_back(fmt::format("{}/{}", text_of_address(AF_INET6, &address.sin6_addr), bits));
}

void add_route(const nlmsghdr& header, unsigned device, DeviceFacts& out) {
  rtmsg route{};
  std::memcpy(&route, NLMSG_DATA(&header), sizeof route);
  if (route.rtm_table != RT_TABLE_MAIN || route.rtm_type != RTN_UNICAST || route.rtm_protocol == RTPROT_KERNEL ||
      (route.rtm_family != AF_INET && route.rtm_family != AF_INET6))
    return;
  std::string to, gateway;
  bool ours = false;
  auto* attribute =
      reinterpret_cast<const rtattr*>(static_cast<const char*>(NLMSG_DATA(&header)) + NLMSG_ALIGN(sizeof route));
  auto left = static_cast<int>(header.nlmsg_len - NLMSG_LENGTH(sizeof route));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type == RTA_DST) to = text_of_address(route.rtm_family, RTA_DATA(attribute));
    if (attribute->rta_type == RTA_GATEWAY) gateway = text_of_address(route.rtm_family, RTA_DATA(attribute));
    u32 number = 0;
    if (attribute->rta_type != RTA_OIF) continue;
    std::memcpy(&number, RTA_DATA(attribute), sizeof number);
    ours = number == device;
  }
  if (!ours) return;
  if (to.empty() && !gateway.empty()) return out.gateways.push_back(gateway);
  if (to.empty()) to = route.rtm_family == AF_INET ? "0.0.0.0" : "::";
  out.routes.push_back(fmt::format("{}/{}{}{}", to, route.rtm_dst_len, gateway.empty() ? "" : "@", gateway));
}

Result<void> read_routes(unsigned device, DeviceFacts& out) {
  const UniqueFd socket = open_netlink();
  Request request{RTM_GETROUTE, NLM_F_DUMP, rtmsg{}};
  const std::string& bytes = request.finish();
  if (!socket || ::send(socket.get(), bytes.data(), bytes.size(), 0) < 0) return fail_errno("asking for routes");
  for (;;) {
    alignas(nlmsghdr) char answer[32768];
    const ssize_t size = ::recv(socket.get(), answer, sizeof answer, 0);
    if (size <= 0) return fail_errno("reading routes");
    auto left = static_cast<u32>(size);
    for (auto* header = reinterpret_cast<const nlmsghdr*>(answer); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) return {};
      if (header->nlmsg_type == RTM_NEWROUTE) add_route(*header, device, out);
    }
  }
}

}  // namespace

Result<DeviceFacts> device_facts(const std::string& name) {
  DeviceFacts out;
  const unsigned device = ::if_nametoindex(name.c_str());
  if (device == 0) return fail_errno("looking for the network device {}", name);
  BH_ASSIGN(out.mtu, device_mtu(name));
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return fail_errno("reading the addresses of {}", name);
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next)
    if (one->ifa_addr != nullptr && name == one->ifa_name) add_address(*one, out);
  ::freeifaddrs(list);
  BH_TRY(read_routes(device, out));
  return out;
}

Result<void> join_devices(const std::string& one, const std::string& other) {
  BH_TRY(redirect(one, other));
  return redirect(other, one);
}

}  // namespace bulkhead::net
