// Who may read and write a node [xenstore "Permissions"]. The first entry names the owner, who may do everything, and
// what all those may do who are named by no other entry.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"

namespace bulkhead::device::xenbus::store {

using Domid = u16;
inline constexpr Domid kDomainZero = 0;  // the monitor: may do everything

enum class Access : u8 { kNone = 0, kRead = 1, kWrite = 2, kReadWrite = 3 };
constexpr bool includes(Access all, Access one) {
  return (static_cast<u8>(all) & static_cast<u8>(one)) == static_cast<u8>(one);
}

struct Permission {
  Domid domain = 0;
  Access access = Access::kNone;
  bool operator==(const Permission&) const = default;
};
using Permissions = std::vector<Permission>;  // never empty

Access access_of(const Permissions& permissions, Domid who);
inline bool permits(const Permissions& permissions, Domid who, Access wanted) {
  return includes(access_of(permissions, who), wanted);
}

// "n0", "r1", "w1", "b1": no access, read, write, both.
std::optional<Permission> parse_permission(std::string_view text);
std::string format_permission(Permission permission);

// A decimal number from 0 to 65535 and nothing else.
std::optional<Domid> parse_domid(std::string_view text);

}  // namespace bulkhead::device::xenbus::store
