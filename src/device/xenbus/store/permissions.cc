#include "device/xenbus/store/permissions.h"

#include <charconv>

namespace bulkhead::device::xenbus::store {

Access access_of(const Permissions& permissions, Domid who) {
  if (who == kDomainZero || permissions.front().domain == who) return Access::kReadWrite;
  for (std::size_t i = 1; i < permissions.size(); ++i)
    if (permissions[i].domain == who) return permissions[i].access;
  return permissions.front().access;
}

std::optional<Domid> parse_domid(std::string_view text) {
  Domid domain = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), domain);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return domain;
}

std::optional<Permission> parse_permission(std::string_view text) {
  constexpr std::string_view kLetters = "nrwb";  // in the order of Access
  if (text.empty()) return std::nullopt;
  const std::size_t access = kLetters.find(text.front());
  const std::optional<Domid> domain = parse_domid(text.substr(1));
  if (access == std::string_view::npos || !domain) return std::nullopt;
  return Permission{*domain, static_cast<Access>(access)};
}

std::string format_permission(Permission permission) {
  return "nrwb"[static_cast<u8>(permission.access)] + std::to_string(permission.domain);
}

}  // namespace bulkhead::device::xenbus::store
