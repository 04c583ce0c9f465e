// The rate of the host's time stamp counter.
#pragma once
#include "base/ints.h"

namespace bulkhead::engine {

// Hertz, never 0. The first call may take 20 ms (where neither CPUID nor the kernel tells); later ones are free. Any
// thread.
u64 host_tsc_hz();

}  // namespace bulkhead::engine
