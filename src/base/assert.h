// BH_ASSERT: for our own mistakes only, never for a guest's or a host's.
#pragma once
#include <string_view>

namespace bulkhead {

// Shown in front of every failed assertion, so that a core file says whose it is. Set once by the monitor.
void set_zone_identity(std::string_view name);

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace bulkhead

#define BH_ASSERT(expression)                                        \
  do {                                                               \
    if (!(expression)) [[unlikely]]                                  \
      ::bulkhead::assertion_failed(#expression, __FILE__, __LINE__); \
  } while (false)
