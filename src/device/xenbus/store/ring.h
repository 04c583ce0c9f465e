// The page that a domain and the store share: two byte streams and the state of the connection [xen/io/xs_wire.h
// "Inter-domain shared memory communications", xenstore-ring]. The other end may write anything anywhere at any time:
// our own indexes are kept here and only shown there, its indexes are read once and judged, bytes are copied out.
#pragma once
#include <cstddef>
#include <expected>
#include <span>

#include "base/ints.h"
#include "device/xenbus/store/wire.h"

namespace bulkhead::device::xenbus::store {

// One thread at a time.
class Ring {
 public:
  // `page` outlives us, is kPageSize bytes and page aligned. What the other end has put there already is kept.
  explicit Ring(std::byte* page);

  // Bytes moved, as many as there are or as there is room for. Unexpected: the other end's index makes no sense.
  struct BadIndex {};
  std::expected<std::size_t, BadIndex> read(std::span<std::byte> out);
  std::expected<std::size_t, BadIndex> write(std::span<const std::byte> in);

  // The other end asks for a new start; it looks at nothing else until reset() has answered.
  bool reconnect_requested() const;
  void reset();
  void report_error(u32 error);  // XENSTORE_ERROR_*

 private:
  xenstore_domain_interface& page_;
  u32 request_consumer_, response_producer_;
};

}  // namespace bulkhead::device::xenbus::store
