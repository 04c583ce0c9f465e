// Paths of the store [xenstore "Paths"]: what may be one, and what a domain means by it.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "device/xenbus/store/permissions.h"

namespace bulkhead::device::xenbus::store {

std::string home_of(Domid domain);  // "/local/domain/7"

// The absolute path that `who` means: as it is, or below its home. nullopt: not a path, or too long.
std::optional<std::string> resolve_path(std::string_view path, Domid who);
// The same for a watch, which may also be on "@introduceDomain" and the like.
std::optional<std::string> resolve_watch_path(std::string_view path, Domid who);

// `path` is `above` or something below it. Both absolute.
bool at_or_below(std::string_view path, std::string_view above);
std::string_view parent_of(std::string_view path);  // of "/" it is "/"

// Takes the first name off an absolute path, or off what an earlier call has left; empty: there are no more.
std::string_view next_name(std::string_view& path);

}  // namespace bulkhead::device::xenbus::store
