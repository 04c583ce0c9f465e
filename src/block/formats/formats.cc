#include "block/formats/formats.h"

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block {

std::span<const Format> builtin_formats() {
  static const Format kFormats[] = {qcow2::kFormat};  // raw needs no row
  return kFormats;
}

}  // namespace bulkhead::block
