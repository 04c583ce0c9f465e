#include "container/shim/pod_network.h"

#include <net/if.h>

#include <algorithm>

#include "net/tap/in_namespace.h"

namespace bulkhead::container {

Result<std::vector<std::string>> pod_networks(const std::string& net_space) {
  std::vector<std::string> out;
  if (net_space.empty()) return out;
  BH_TRY(net::in_namespace(net_space, [&]() -> Result<void> {
    struct if_nameindex* const all = ::if_nameindex();
    if (all == nullptr) return fail_errno("listing the network devices of {}", net_space);
    // Tunnel devices that every namespace gets are nothing that a plugin made.
    for (const struct if_nameindex* one = all; one->if_index != 0; ++one) {
      const std::string name = one->if_name;
      const bool of_kernel = name == "lo" || name.ends_with("0")
                                 ? name.starts_with("tunl") || name.starts_with("sit") || name.starts_with("gre") ||
                                       name.starts_with("erspan") || name.starts_with("ip_vti") ||
                                       name.starts_with("ip6") || name == "lo"
                                 : false;
      if (!of_kernel) out.push_back(fmt::format("device={},netns={}", name, net_space));
    }
    ::if_freenameindex(all);
    return {};
  }));
  return out;
}

}  // namespace bulkhead::container
