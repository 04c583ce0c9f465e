// Xen's error numbers, which are not always the host's [xen/errno.h].
#pragma once
#include "base/ints.h"

namespace bulkhead::abi::xen {

#define XEN_ERRNO(name, value) inline constexpr i64 kX##name = value;
#include <xen/errno.h>
#undef XEN_ERRNO

}  // namespace bulkhead::abi::xen
