// The UUID by which a zone knows itself: a random one [rfc4122 §4.4].
#pragma once
#include <array>
#include <string>

#include "base/ints.h"

namespace bulkhead::machine {

std::array<u8, 16> random_uuid();
// As /sys/hypervisor/uuid and xenstore write it, 36 characters.
std::string uuid_text(const std::array<u8, 16>& uuid);

}  // namespace bulkhead::machine
