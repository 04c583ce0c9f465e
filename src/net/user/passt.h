// The network of those who have no privilege: passt turns a zone's frames into ordinary sockets of this host. We start
// one passt for each zone; it jails itself, and it ends when our end of the socket is closed, however we end.
#pragma once
#include <sys/types.h>

#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "net/end.h"
#include "net/user/stream_queue.h"

namespace bulkhead::net {

// A port of this host that leads to one of the zone's.
struct PublishedPort {
  std::string address;  // of this host's; empty: all
  u16 host = 0, guest = 0;
  bool udp = false;
};

struct UserConfig {
  std::vector<PublishedPort> ports;
  bool ipv4 = true, ipv6 = true;
  bool host_loopback = false;  // the zone reaches this host's loopback by its gateway's address
  u16 mtu = 65500;             // Xen's frontends take no more than 65517
};

// What the zone is told, the same in each: it has this network for itself.
inline constexpr const char *kUserAddress4 = "10.0.2.15", *kUserGateway4 = "10.0.2.2", *kUserDns4 = "10.0.2.3";
inline constexpr const char *kUserAddress6 = "fd00:62:68::15", *kUserGateway6 = "fd00:62:68::2",
                            *kUserDns6 = "fd00:62:68::3";

bool passt_is_installed();

class Passt final : public End {
 public:
  // Starts it; does not wait. Errors: passt is not there, or cannot be started.
  static Result<std::unique_ptr<Passt>> start(const UserConfig& config, const MacAddress& zone_mac);
  ~Passt() override;
  // Waits until it serves. Errors: what passt says, for example that a port is taken.
  Result<void> wait_until_ready();

  std::string description() const override { return "passt, the zone's user network"; }
  unsigned queue_count() const override { return 1; }
  EndQueue& queue(unsigned) override { return *queue_; }
  // It ends TCP and UDP connections here and looks at no transport checksum; a TCP frame may be as long as IP allows.
  Offloads takes() const override { return kChecksum | kTso4 | kTso6 | kTsoEcn; }

 private:
  Passt() = default;
  pid_t process_ = -1;
  bool serves_ = false;
  UniqueFd ready_, words_;  // its pid, when it serves; its stderr
  std::unique_ptr<StreamQueue> queue_;
};

}  // namespace bulkhead::net
