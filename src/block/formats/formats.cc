#include "block/formats/formats.h"

namespace bulkhead::block {

std::span<const Format> builtin_formats() { return {}; }  // raw needs no row

}  // namespace bulkhead::block
