// Any bytes as the first cluster of an image: refused or taken, and what is taken is within its limits and can be
// written back to the same.
#include <cstdlib>

#include "block/qcow2/header.h"
#include "block/qcow2/layout.h"

extern "C" int LLVMFuzzerTestOneInput(const bulkhead::u8* data, std::size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::block::qcow2;
  const auto header = parse_header(std::as_bytes(std::span{data, size}));
  if (!header) return 0;
  if (header->l1_size * u64{8} > kMaxL1Bytes || header->l1_entries_for(header->size) > header->l1_size) std::abort();
  const auto bytes = serialize_header(*header);
  if (bytes) {
    const auto again = parse_header(*bytes);
    if (!again || again->size != header->size || again->backing_file != header->backing_file) std::abort();
  }
  // The rest as L2 entries.
  const Layout layout = Layout::of(*header);
  std::vector<std::byte> slice(layout.slice_bytes);
  std::memcpy(slice.data(), data, std::min(size, slice.size()));
  for (u64 at = 0; at < layout.slice_span();) {
    const Extent extent = layout.extent(slice.data(), at, layout.slice_span() - at);
    if (extent.length == 0) std::abort();
    if (extent.kind == ExtentKind::kCompressed && layout.place(extent.descriptor).bytes > 2 * layout.cluster() + 512)
      std::abort();
    at += extent.length;
  }
  return 0;
}
