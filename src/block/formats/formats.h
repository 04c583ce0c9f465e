// The image formats that this program has, for Opener. A new format is a room beside this one and a row here.
#pragma once
#include <span>

#include "block/open/opener.h"

namespace bulkhead::block {

std::span<const Format> builtin_formats();

}  // namespace bulkhead::block
