#include "net/frame.h"

#include <fmt/ranges.h>

namespace bulkhead::net {

std::string text_of(const MacAddress& mac) { return fmt::format("{:02x}", fmt::join(mac, ":")); }

}  // namespace bulkhead::net
