#include "zone/oci/user.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace bulkhead::zone {
namespace {

constexpr std::size_t kMaxGroups = 64;

std::optional<u32> number(std::string_view text) {
  u32 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value == ~0u) return std::nullopt;
  return value;
}

std::string_view take(std::string_view& rest, char end) {
  const std::string_view out = rest.substr(0, rest.find(end));
  rest.remove_prefix(std::min(out.size() + 1, rest.size()));
  return out;
}

// Calls `use` with the first seven fields of each line until it says true.
template <class Use>
void each_line(std::string_view text, Use use) {
  while (!text.empty()) {
    std::string_view line = take(text, '\n');
    std::array<std::string_view, 7> fields;
    for (std::string_view& field : fields) field = take(line, ':');
    if (!fields[0].empty() && use(fields)) return;
  }
}

}  // namespace

Result<ImageUser> resolve_user(std::string_view user, std::string_view passwd, std::string_view group) {
  ImageUser out;
  const std::string_view name = user.substr(0, user.find(':'));
  const std::string_view group_name = name.size() < user.size() ? user.substr(name.size() + 1) : std::string_view{};
  const std::string_view wanted = name.empty() ? "0" : name;
  const std::optional<u32> wanted_number = number(wanted);
  std::string_view found_name;
  each_line(passwd, [&](const auto& fields) {
    const std::optional<u32> uid = number(fields[2]), gid = number(fields[3]);
    if (!uid || !gid || (fields[0] != wanted && uid != wanted_number)) return false;
    out.uid = *uid;
    out.gid = *gid;
    if (fields[5].starts_with('/') && fields[5].size() < 1024) out.home = fields[5];
    found_name = fields[0];
    return true;
  });
  if (found_name.empty()) {
    if (!wanted_number) return fail("the image has no user {} in its /etc/passwd", wanted);
    out.uid = *wanted_number;
    if (out.uid == 0) out.home = "/root";
  }
  if (!group_name.empty()) {
    std::optional<u32> gid = number(group_name);
    each_line(group, [&](const auto& fields) {
      if (fields[0] != group_name || !number(fields[2])) return false;
      gid = number(fields[2]);
      return true;
    });
    if (!gid) return fail("the image has no group {} in its /etc/group", group_name);
    out.gid = *gid;
    return out;  // a group that is named is the only one
  }
  each_line(group, [&](const auto& fields) {
    const std::optional<u32> gid = number(fields[2]);
    std::string_view members = fields[3];
    while (gid && !found_name.empty() && !members.empty())
      if (take(members, ',') == found_name && *gid != out.gid && out.groups.size() < kMaxGroups)
        out.groups.push_back(*gid);
    return false;
  });
  return out;
}

}  // namespace bulkhead::zone
