#include "device/xenbus/store/ring.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace bulkhead::device::xenbus::store {
namespace {

u32 load(const u32& field) { return std::atomic_ref<u32>{const_cast<u32&>(field)}.load(std::memory_order_acquire); }
void store(u32& field, u32 value) { std::atomic_ref<u32>{field}.store(value, std::memory_order_release); }

// Copies between `bytes` and the circular buffer at stream offset `index`.
template <class Copy>
void in_two_parts(u32 index, std::size_t length, Copy copy) {
  const std::size_t first = std::min<std::size_t>(length, XENSTORE_RING_SIZE - MASK_XENSTORE_IDX(index));
  copy(MASK_XENSTORE_IDX(index), 0, first);
  if (first < length) copy(0, first, length - first);
}

}  // namespace

Ring::Ring(std::byte* page)
    : page_{*reinterpret_cast<xenstore_domain_interface*>(page)},
      request_consumer_{load(page_.req_cons)},
      response_producer_{load(page_.rsp_prod)} {
  store(page_.error, XENSTORE_ERROR_NONE);
  store(page_.server_features, XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR);
}

std::expected<std::size_t, Ring::BadIndex> Ring::read(std::span<std::byte> out) {
  const u32 available = load(page_.req_prod) - request_consumer_;
  if (available > XENSTORE_RING_SIZE) return std::unexpected{BadIndex{}};
  const std::size_t length = std::min<std::size_t>(available, out.size());
  if (length == 0) return 0;
  in_two_parts(request_consumer_, length, [&](std::size_t from, std::size_t to, std::size_t count) {
    std::memcpy(out.data() + to, page_.req + from, count);
  });
  request_consumer_ += static_cast<u32>(length);
  store(page_.req_cons, request_consumer_);
  return length;
}

std::expected<std::size_t, Ring::BadIndex> Ring::write(std::span<const std::byte> in) {
  const u32 used = response_producer_ - load(page_.rsp_cons);
  if (used > XENSTORE_RING_SIZE) return std::unexpected{BadIndex{}};
  const std::size_t length = std::min<std::size_t>(XENSTORE_RING_SIZE - used, in.size());
  if (length == 0) return 0;
  in_two_parts(response_producer_, length, [&](std::size_t to, std::size_t from, std::size_t count) {
    std::memcpy(page_.rsp + to, in.data() + from, count);
  });
  response_producer_ += static_cast<u32>(length);
  store(page_.rsp_prod, response_producer_);
  return length;
}

bool Ring::reconnect_requested() const { return load(page_.connection) == XENSTORE_RECONNECT; }

void Ring::reset() {
  request_consumer_ = response_producer_ = 0;
  for (u32* index : {&page_.req_cons, &page_.req_prod, &page_.rsp_cons, &page_.rsp_prod}) store(*index, 0);
  store(page_.error, XENSTORE_ERROR_NONE);
  store(page_.connection, XENSTORE_CONNECTED);
}

void Ring::report_error(u32 error) { store(page_.error, error); }

}  // namespace bulkhead::device::xenbus::store
