#include "base/assert.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

namespace bulkhead {
namespace {
std::array<char, 64> g_identity{};
}

void set_zone_identity(std::string_view name) {
  const auto length = std::min(name.size(), g_identity.size() - 1);
  std::copy_n(name.begin(), length, g_identity.begin());
  g_identity[length] = '\0';
}

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "bulkhead: zone '%s': internal error: %s (%s:%d)\n", g_identity.data(), expression, file, line);
  std::abort();
}

}  // namespace bulkhead
