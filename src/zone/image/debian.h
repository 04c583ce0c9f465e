// The default root file system: Debian's minimal set of packages, made by mmdebstrap from the host's apt sources.
#pragma once
#include <string>

#include "zone/store/cache.h"

namespace bulkhead::zone {

// The path of the erofs image in the cache, made if it is not there yet. Takes up to a minute and the network then.
// Errors: mmdebstrap or mkfs.erofs is missing or failed.
Result<std::string> debian_image(Cache& cache, Workshop& workshop);

}  // namespace bulkhead::zone
