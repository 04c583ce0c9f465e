// "name", "name:group", "1000", "1000:100", ... as numbers, by the image's own lists.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

struct ImageUser {
  u32 uid = 0, gid = 0;
  std::vector<u32> groups;  // besides gid; at most 64
  std::string home = "/";   // "/" where the lists say none
};

// `passwd` and `group`: the contents of /etc/passwd and /etc/group. An empty `user` is root. Errors: no such name.
Result<ImageUser> resolve_user(std::string_view user, std::string_view passwd, std::string_view group);

}  // namespace bulkhead::zone
