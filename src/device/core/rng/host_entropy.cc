#include "device/core/rng/host_entropy.h"

#include <sys/random.h>

#include <cerrno>

#include "base/assert.h"

namespace bulkhead::device {

void HostEntropy::fill(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::getrandom(out.data(), out.size(), 0);
    // `out` is valid memory and flags are 0, so nothing but a signal can interfere.
    BH_ASSERT(got > 0 || errno == EINTR);
    if (got > 0) out = out.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace bulkhead::device
