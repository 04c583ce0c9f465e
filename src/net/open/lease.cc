#include "net/open/lease.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace bulkhead::net {

std::string lease_folder(const std::string& bridge) {
  const char* const own = std::getenv("BULKHEAD_RUNTIME_DIR");
  return fmt::format("{}/net/{}", own != nullptr ? own : "/run/bulkhead", bridge);
}

std::vector<std::string> host_name_servers(const std::string& resolv_conf) {
  std::vector<std::string> servers;
  std::istringstream in{resolv_conf};
  for (std::string line; std::getline(in, line) && servers.size() < 3;) {
    std::istringstream words{line};
    std::string key, value;
    if (words >> key >> value && key == "nameserver" && !value.starts_with("127.") && value != "::1" &&
        !value.contains('%'))
      servers.push_back(value);
  }
  return servers;
}

Result<void> take_address(Network& network, const std::vector<Address4>& bridge) {
  NetConfig& config = network.config;
  const std::string folder = lease_folder(config.name);
  if (bridge.empty() || ::access(folder.c_str(), W_OK) != 0) {
    config.how = NetConfig::Addresses::kDhcp;
    return {};
  }
  const Address4& own = bridge[0];
  const u32 hosts = own.prefix >= 31 ? 0 : (u32{1} << (32 - own.prefix)) - 2,
            first = own.address & (~u32{0} << (32 - own.prefix));
  for (u32 i = 1; i <= hosts && i <= 65534; ++i) {
    const u32 address = first + i;
    if (address == own.address) continue;
    const std::string text = text_of_address4(address);
    UniqueFd file{::open((folder + "/" + text).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!file) return fail_errno("noting an address in {}", folder);
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) continue;  // another zone's
    network.lease = std::move(file);
    config.addresses.push_back(fmt::format("{}/{}", text, own.prefix));
    if (config.gateways.empty()) config.gateways.push_back(text_of_address4(own.address));
    if (config.dns.empty()) {
      std::ifstream in{"/etc/resolv.conf"};
      config.dns = host_name_servers({std::istreambuf_iterator<char>{in}, {}});
    }
    return {};
  }
  return fail("--net bridge={}: all of its {} addresses are taken", config.name, hosts);
}

}  // namespace bulkhead::net
