#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"
#include "guest/agent/dhcp.h"
#include "guest/agent/netlink.h"

namespace bulkhead::agent {
namespace {

constexpr int kDeviceTimeoutMs = 10'000;
constexpr unsigned kMaxServers = 3;  // resolv.conf(5) knows no more

char g_servers[kMaxServers][INET6_ADDRSTRLEN];
unsigned g_server_count = 0;

void add_server(const char* text) {
  for (unsigned i = 0; i < g_server_count; ++i)
    if (strcmp(g_servers[i], text) == 0) return;
  if (g_server_count < kMaxServers && strlen(text) < sizeof g_servers[0]) strcpy(g_servers[g_server_count++], text);
}

bool read_line(const char* path, char* out, int size) {
  FILE* const file = fopen(path, "re");
  if (file == nullptr) return false;
  const bool good = fgets(out, size, file) != nullptr;
  fclose(file);
  if (good) out[strcspn(out, "\n")] = 0;
  return good;
}

// The device with this MAC address, that is no VLAN or the like of it: its name; false: none.
bool find_device(const char* mac, char (&name)[IF_NAMESIZE]) {
  DIR* const folder = opendir("/sys/class/net");
  if (folder == nullptr) return false;
  bool found = false;
  while (const dirent* const entry = found ? nullptr : readdir(folder)) {
    char path[300], address[32];
    snprintf(path, sizeof path, "/sys/class/net/%s/address", entry->d_name);
    found = entry->d_name[0] != '.' && read_line(path, address, sizeof address) && strcasecmp(address, mac) == 0;
    if (found) snprintf(name, sizeof name, "%.15s", entry->d_name);
  }
  closedir(folder);
  return found;
}

bool wait_for_device(const char* mac, char (&name)[IF_NAMESIZE]) {
  for (int waited = 0; waited < kDeviceTimeoutMs; waited += 5) {
    if (find_device(mac, name)) return true;
    const timespec pause{0, 5'000'000};
    nanosleep(&pause, nullptr);
  }
  return false;
}

int parse_address(const char* text, void* out) {
  if (inet_pton(AF_INET, text, out) == 1) return AF_INET;
  return inet_pton(AF_INET6, text, out) == 1 ? AF_INET6 : 0;
}

bool write_file(const char* path, const char* text) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  const auto size = static_cast<ssize_t>(strlen(text));
  const bool good = write(fd, text, static_cast<size_t>(size)) == size;
  close(fd);
  return good;
}

// Where addresses are given, those are all: routers need not be listened to, and nobody else can have them.
void trust_given_addresses(const char* device) {
  char path[96];
  for (const char* const setting : {"accept_ra", "accept_dad"}) {
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", device, setting);
    write_file(path, "0");
  }
}

// The address that the kernel would make itself [rfc4291 appendix A], but only when it has looked at the carrier, which
// may take a second.
bool add_link_local(Netlink& kernel, int device, const char* mac) {
  unsigned char m[6] = {};
  sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]);
  const unsigned char address[16] = {0xfe, 0x80, 0,    0,    0,    0,    0,   0, static_cast<unsigned char>(m[0] ^ 2),
                                     m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
  return kernel.add_address(device, AF_INET6, address, 64);
}

// One datagram to all routers, so that ours knows the device's own address before the first connection from outside:
// passt forwards some by that one.
void greet_router(int device) {
  const int greeting = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 to{};
  to.sin6_family = AF_INET6;
  to.sin6_port = htons(9);  // discard
  to.sin6_scope_id = static_cast<std::uint32_t>(device);
  inet_pton(AF_INET6, "ff02::2", &to.sin6_addr);
  (void)!sendto(greeting, "", 0, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
  close(greeting);
}

bool use_lease(Netlink& kernel, int device, const DhcpLease& lease, Failure& failure) {
  if (lease.mtu != 0 && !kernel.set_up(device, lease.mtu)) return failed(failure, "setting the MTU that DHCP offers");
  if (!kernel.add_address(device, AF_INET, &lease.address, lease.prefix, lease.seconds))
    return failed(failure, "setting the address that DHCP offers");
  if (lease.router != 0 && !kernel.add_default_route(device, AF_INET, &lease.router))
    return failed(failure, "setting the route that DHCP offers");
  for (unsigned i = 0; i < lease.server_count; ++i) {
    char text[INET_ADDRSTRLEN];
    add_server(inet_ntop(AF_INET, &lease.servers[i], text, sizeof text));
  }
  return true;
}

// "10.0.0.0/8", "10.0.0.0/8@192.0.2.1"
bool add_route(Netlink& kernel, int device, const char* value) {
  char text[128];
  snprintf(text, sizeof text, "%s", value);
  char* const at = strchr(text, '@');
  if (at != nullptr) *at = 0;
  char* const slash = strchr(text, '/');
  if (slash == nullptr) return false;
  *slash = 0;
  unsigned char to[16], gateway[16];
  const int family = parse_address(text, to);
  if (family == 0 || (at != nullptr && parse_address(at + 1, gateway) != family)) return false;
  return kernel.add_route(device, family, to, static_cast<unsigned>(atoi(slash + 1)),
                          at != nullptr ? gateway : nullptr);
}

constexpr std::uint32_t kShortestWait = 1;  // seconds between two questions

// Half of the time that is left passes before each question [rfc2131 §4.4.5]. When a lease ends, the kernel takes its
// address away by itself; then we ask for another one.
[[noreturn]] void keep_lease(int device, const char* mac, DhcpLease lease) {
  Netlink kernel;
  for (std::uint32_t left = lease.seconds;;) {
    const std::uint32_t wait = left / 2 > kShortestWait ? left / 2 : kShortestWait;
    sleep(wait);
    left -= left < wait ? left : wait;
    DhcpLease heard = lease;
    bool lost = false;
    Failure failure;
    if (renew_dhcp(device, mac, heard, lost)) {
      // What it says of routes and servers is what it said.
    } else if (left > kShortestWait && !lost) {
      continue;
    } else if (!ask_dhcp(device, mac, heard, failure) || !use_lease(kernel, device, heard, failure)) {
      left = 0;
      continue;
    }
    lease = heard;
    (void)kernel.add_address(device, AF_INET, &lease.address, lease.prefix, lease.seconds);
    if (lease.seconds == 0) _exit(0);
    left = lease.seconds;
  }
}

struct Words {
  const char* mac = nullptr;
  std::uint32_t mtu = 0;
  bool dhcp = false, address6 = false;
};

// One word; what needs the device to be up waits for the second pass.
bool apply(Netlink& kernel, int device, char* word, bool routes, Failure& failure) {
  char* const value = strchr(word, '=');
  if (value == nullptr) return true;
  unsigned char address[16];
  char text[64];
  if (routes && strncmp(word, "gw=", 3) == 0) {
    const int family = parse_address(value + 1, address);
    if (family == 0 || !kernel.add_default_route(device, family, address))
      return failed(failure, "setting the default route by %.64s", value + 1);
  }
  if (routes && strncmp(word, "route=", 6) == 0 && !add_route(kernel, device, value + 1))
    return failed(failure, "setting the route %.64s", value + 1);
  if (!routes && strncmp(word, "ip=", 3) == 0) {
    snprintf(text, sizeof text, "%s", value + 1);
    char* const slash = strchr(text, '/');
    if (slash != nullptr) *slash = 0;
    const int family = parse_address(text, address);
    if (family == 0 || slash == nullptr ||
        !kernel.add_address(device, family, address, static_cast<unsigned>(atoi(slash + 1))))
      return failed(failure, "setting the address %.64s", value + 1);
  }
  if (!routes && strncmp(word, "dns=", 4) == 0) add_server(value + 1);
  return true;
}

}  // namespace

bool configure_network(char* network, Failure& failure) {
  char* list[64];
  unsigned count = 0;
  for (char* word = strtok(network, " "); word != nullptr && count < 64; word = strtok(nullptr, " "))
    list[count++] = word;
  Words words;
  for (unsigned i = 0; i < count; ++i) {
    if (strncmp(list[i], "mac=", 4) == 0) words.mac = list[i] + 4;
    if (strncmp(list[i], "mtu=", 4) == 0) words.mtu = static_cast<std::uint32_t>(atoi(list[i] + 4));
    if (strcmp(list[i], "dhcp=1") == 0) words.dhcp = true;
    if (strncmp(list[i], "ip=", 3) == 0 && strchr(list[i], ':') != nullptr) words.address6 = true;
  }
  char name[IF_NAMESIZE] = {};
  if (words.mac == nullptr || !wait_for_device(words.mac, name))
    return failed_plainly(failure, "no network device %s appeared", words.mac != nullptr ? words.mac : "");
  const int device = static_cast<int>(if_nametoindex(name));
  if (words.address6) trust_given_addresses(name);
  Netlink kernel;
  if (!kernel.set_up(device, words.mtu)) return failed(failure, "setting %s up with an MTU of %u", name, words.mtu);
  for (const bool routes : {false, true})
    for (unsigned i = 0; i < count; ++i)
      if (!apply(kernel, device, list[i], routes, failure)) return false;
  if (words.address6 && add_link_local(kernel, device, words.mac)) greet_router(device);
  if (!words.dhcp) return true;
  DhcpLease lease;
  if (!ask_dhcp(device, words.mac, lease, failure) || !use_lease(kernel, device, lease, failure)) return false;
  if (lease.seconds != 0 && fork() == 0) keep_lease(device, words.mac, lease);  // reaped with all others
  return true;
}

void write_names(const char* hostname) {
  char text[1024];
  int used = 0;
  for (unsigned i = 0; i < g_server_count; ++i)
    used += snprintf(text + used, sizeof text - static_cast<unsigned>(used), "nameserver %s\n", g_servers[i]);
  if (used > 0) {
    unlink("/etc/resolv.conf");  // where it is a link into another system's /run
    write_file("/etc/resolv.conf", text);
  }
  struct stat status;
  if (stat("/etc/hosts", &status) == 0) return;
  snprintf(text, sizeof text, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 %.64s\n", hostname);
  write_file("/etc/hosts", text);
}

}  // namespace bulkhead::agent
