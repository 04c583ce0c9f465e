// Talking to the kernel about network devices: one request, one answer.
#pragma once
#include <cstdint>

namespace bulkhead::agent {

class Netlink {
 public:
  Netlink();
  ~Netlink();
  // Each false with errno. `prefix` in bits; `address` and `gateway` of 4 (AF_INET) or 16 (AF_INET6) bytes.
  bool set_up(int device, std::uint32_t mtu);  // 0: as it is
  // The address stays for `seconds`; 0: for ever. One that is there already gets the new time.
  bool add_address(int device, int family, const void* address, unsigned prefix, std::uint32_t seconds = 0);
  bool add_default_route(int device, int family, const void* gateway);
  bool add_route(int device, int family, const void* to, unsigned prefix, const void* gateway);  // nullptr: on the link

 private:
  bool ask(void* request);
  int socket_;
};

}  // namespace bulkhead::agent
