// What the file server's process and who started it agree on.
#pragma once
#include <string_view>

namespace bulkhead::fs {

inline constexpr int kWordsFd = 3, kCountsFd = 4, kFirstLaneFd = 5;
inline constexpr std::string_view kReadyWord = "ready\n";  // anything else is an error, in one line

}  // namespace bulkhead::fs
