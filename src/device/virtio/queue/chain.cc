#include "device/virtio/queue/chain.h"

#include <algorithm>
#include <cstring>

namespace bulkhead::device::virtio {

void ChainBuffers::clear() {
  readable.clear();
  writable.clear();
  first_readable = 0;
  readable_bytes = writable_bytes = 0;
  taken_last = nullptr;
}

bool Chain::take(std::span<std::byte> out) {
  if (out.size() > buffers_->readable_bytes) return false;
  while (!out.empty()) {
    const IoBuffer& front = buffers_->readable[buffers_->first_readable];
    const std::size_t count = std::min<u64>(out.size(), front.length);
    std::memcpy(out.data(), front.data, count);
    out = out.subspan(count);
    skip(count);
  }
  return true;
}

void Chain::skip(u64 count) {
  BH_ASSERT(count <= buffers_->readable_bytes);
  buffers_->readable_bytes -= count;
  while (count > 0) {
    IoBuffer& front = buffers_->readable[buffers_->first_readable];
    const u64 step = std::min(count, front.length);
    front.data += step;
    front.length -= step;
    count -= step;
    if (front.length == 0) ++buffers_->first_readable;
  }
}

std::byte* Chain::take_last_writable() {
  if (buffers_->writable.empty()) return nullptr;
  IoBuffer& back = buffers_->writable.back();
  std::byte* const at = back.data + --back.length;
  if (back.length == 0) buffers_->writable.pop_back();
  --buffers_->writable_bytes;
  if (buffers_->taken_last == nullptr) buffers_->taken_last = at;
  return at;
}

u64 Chain::write(std::span<const std::byte> in) const {
  u64 done = 0;
  for (const IoBuffer& buffer : buffers_->writable) {
    const std::size_t count = std::min<u64>(in.size() - done, buffer.length);
    std::memcpy(buffer.data, in.data() + done, count);
    done += count;
  }
  return done;
}

}  // namespace bulkhead::device::virtio
