// Any bytes as an answer to the agent's question by DHCP.
#include "base/assert.h"
#include "guest/agent/dhcp.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bulkhead::agent;
  std::uint32_t transaction = 0;
  if (size >= 8) memcpy(&transaction, data + 4, sizeof transaction);
  DhcpLease lease;
  const int type = parse_dhcp(data, size, transaction, lease);
  BH_ASSERT(type == 0 || lease.address != 0);
  BH_ASSERT(type >= 0 && type <= 255 && lease.prefix <= 32 && lease.server_count <= 3);
  if (type != 0) BH_ASSERT(parse_dhcp(data, size, transaction + 1, lease) == 0);
  return 0;
}
