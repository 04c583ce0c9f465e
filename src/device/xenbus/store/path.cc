#include "device/xenbus/store/path.h"

#include <algorithm>

#include "device/xenbus/store/wire.h"

namespace bulkhead::device::xenbus::store {
namespace {

bool may_be_in_path(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '/' ||
         c == '_' || c == '@';
}

bool well_formed(std::string_view absolute) {
  if (absolute == "/") return true;
  return !absolute.ends_with('/') && absolute.find("//") == std::string_view::npos &&
         std::ranges::all_of(absolute, may_be_in_path);
}

}  // namespace

std::string home_of(Domid domain) { return "/local/domain/" + std::to_string(domain); }

std::optional<std::string> resolve_path(std::string_view path, Domid who) {
  const bool absolute = path.starts_with('/');
  if (path.empty() || path.size() > (absolute ? XENSTORE_ABS_PATH_MAX : XENSTORE_REL_PATH_MAX)) return std::nullopt;
  std::string whole = absolute ? std::string{path} : home_of(who) + '/' + std::string{path};
  if (!well_formed(whole)) return std::nullopt;
  return whole;
}

std::optional<std::string> resolve_watch_path(std::string_view path, Domid who) {
  if (!path.starts_with('@')) return resolve_path(path, who);
  if (path.size() > XENSTORE_REL_PATH_MAX || !well_formed(path)) return std::nullopt;
  return std::string{path};
}

bool at_or_below(std::string_view path, std::string_view above) {
  if (above == "/") return path.starts_with('/');
  return path.starts_with(above) && (path.size() == above.size() || path[above.size()] == '/');
}

std::string_view parent_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string_view::npos ? std::string_view{"/"} : path.substr(0, slash);
}

std::string_view next_name(std::string_view& path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  const std::string_view name = path.substr(0, path.find('/'));
  path.remove_prefix(name.size());
  return name;
}

}  // namespace bulkhead::device::xenbus::store
