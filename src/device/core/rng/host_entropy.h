// Random bytes from the host's kernel [getrandom(2)], good enough for keys. Any thread. Blocks only on a host that has
// just booted and is not seeded yet.
#pragma once
#include "device/console_backend.h"

namespace bulkhead::device {

class HostEntropy final : public EntropySource {
 public:
  void fill(std::span<std::byte> out) override;
};

}  // namespace bulkhead::device
