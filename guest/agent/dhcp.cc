#include "guest/agent/dhcp.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace bulkhead::agent {
namespace {

constexpr int kTries = 5;
constexpr std::uint16_t kClientPort = 68, kServerPort = 67;

struct [[gnu::packed]] Message {
  ip network;
  udphdr transport;
  unsigned char operation = 1, hardware = 1, hardware_size = 6, hops = 0;
  std::uint32_t transaction = 0;
  std::uint16_t seconds = 0, flags = 0;
  std::uint32_t addresses[4] = {};
  unsigned char hardware_address[16] = {};
  char names[192] = {};
  unsigned char cookie[4] = {99, 130, 83, 99};
  unsigned char options[60] = {};
};
static_assert(sizeof(Message) == 20 + 8 + 240 + 60);

class Client {
 public:
  // `renews`: the lease is ours already.
  Client(int device, const char* mac, bool renews = false) : device_{device}, renews_{renews} {
    sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac_[0], &mac_[1], &mac_[2], &mac_[3], &mac_[4], &mac_[5]);
    (void)!getrandom(&transaction_, sizeof transaction_, 0);
    // Below IP, since we have no address to send from or to be answered at.
    socket_ = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(ETH_P_IP);
    at.sll_ifindex = device;
    if (socket_ >= 0 && bind(socket_, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) {
      close(socket_);
      socket_ = -1;
    }
  }
  ~Client() {
    if (socket_ >= 0) close(socket_);
  }
  bool open() const { return socket_ >= 0; }

  // Says it until there is an answer of type `wanted`; `refused`: it was another one.
  bool ask(unsigned char type, int wanted, DhcpLease& lease, bool* refused = nullptr) {
    int wait_ms = 300;
    if (refused != nullptr) *refused = false;
    for (int i = 0; i < kTries; ++i, wait_ms *= 2) {
      send(type, lease);
      DhcpLease heard;
      const int answer = listen(wanted, wait_ms, heard);
      if (answer == wanted) lease = heard;
      if (refused != nullptr) *refused = answer != 0 && answer != wanted;
      if (answer != 0) return answer == wanted;
    }
    errno = ETIMEDOUT;
    return false;
  }

 private:
  void send(unsigned char type, const DhcpLease& lease) {
    Message message;
    message.transaction = transaction_;
    message.flags = htons(0x8000);
    memcpy(message.hardware_address, mac_, sizeof mac_);
    unsigned char* at = message.options;
    const auto add = [&at](unsigned char code, const void* data, unsigned char size) {
      *at++ = code;
      *at++ = size;
      memcpy(at, data, size);
      at += size;
    };
    add(53, &type, 1);
    if (renews_) message.addresses[0] = lease.address;  // and then neither of these two [rfc2131 §4.3.2]
    if (type == 3 && !renews_) add(50, &lease.address, 4);
    if (type == 3 && !renews_) add(54, &lease.server, 4);
    const unsigned char wanted[] = {1, 3, 6, 26, 51};
    add(55, wanted, sizeof wanted);
    *at = 255;
    message.network = ip{};
    message.network.ip_v = 4;
    message.network.ip_hl = 5;
    message.network.ip_len = htons(sizeof message);
    message.network.ip_ttl = 64;
    message.network.ip_p = IPPROTO_UDP;
    if (renews_) message.network.ip_src.s_addr = lease.address;
    message.network.ip_dst.s_addr = INADDR_BROADCAST;
    message.network.ip_sum = header_sum(message);
    message.transport = udphdr{};
    message.transport.uh_sport = htons(kClientPort);
    message.transport.uh_dport = htons(kServerPort);
    message.transport.uh_ulen = htons(sizeof message - sizeof message.network);  // without a checksum, as it may be
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons(ETH_P_IP);
    to.sll_ifindex = device_;
    to.sll_halen = 6;
    memset(to.sll_addr, 0xff, 6);
    (void)!sendto(socket_, &message, sizeof message, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
  }

  static std::uint16_t header_sum(const Message& message) {
    std::uint16_t words[sizeof(ip) / 2];
    memcpy(words, &message, sizeof words);
    std::uint32_t sum = 0;
    for (const std::uint16_t word : words) sum += word;
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~(sum + (sum >> 16)));
  }

  // Until `wait_ms` of silence: what is not for us does not count, but there may be much of it.
  int listen(int wanted, int wait_ms, DhcpLease& heard) {
    unsigned char packet[2048];
    for (int others = 0; others < 1000; ++others) {
      pollfd entry{socket_, POLLIN, 0};
      if (poll(&entry, 1, wait_ms) <= 0) return 0;
      const ssize_t size = recv(socket_, packet, sizeof packet, 0);
      if (size < static_cast<ssize_t>(sizeof(ip))) continue;
      const std::size_t network = 4u * (packet[0] & 15u), start = network + sizeof(udphdr);
      if (packet[9] != IPPROTO_UDP || static_cast<std::size_t>(size) < start) continue;
      if (packet[network + 2] != 0 || packet[network + 3] != kClientPort) continue;
      const int type = parse_dhcp(packet + start, static_cast<std::size_t>(size) - start, transaction_, heard);
      if (type == wanted || type == 6) return type;
    }
    return 0;
  }

  int device_, socket_ = -1;
  bool renews_;
  unsigned char mac_[6] = {};
  std::uint32_t transaction_ = 0;
};

}  // namespace

bool ask_dhcp(int device, const char* mac, DhcpLease& lease, Failure& failure) {
  Client client{device, mac};
  if (!client.open()) return failed(failure, "opening a socket for DHCP");
  if (!client.ask(1, 2, lease)) return failed(failure, "asking for an address by DHCP");
  const DhcpLease offer = lease;
  if (!client.ask(3, 5, lease)) return failed(failure, "asking for the address that DHCP offered");
  if (lease.server == 0) lease.server = offer.server;
  return true;
}

bool renew_dhcp(int device, const char* mac, DhcpLease& lease, bool& lost) {
  Client client{device, mac, true};
  lost = false;
  return client.open() && client.ask(3, 5, lease, &lost);
}

}  // namespace bulkhead::agent
