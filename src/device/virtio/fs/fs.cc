#include "device/virtio/fs/fs.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "spec/virtio.h"

namespace bulkhead::device::virtio {

VirtioFs::VirtioFs(FsCore& core, std::string tag) : core_{core}, tag_{std::move(tag)} {
  BH_ASSERT(!tag_.empty() && tag_.size() <= kTagBytes);
}

VirtioFs::~VirtioFs() { core_.set_source(nullptr); }

u32 VirtioFs::type() const { return spec::virtio::kTypeFileSystem; }

// The tag, padded with zeroes, and the number of request queues [virtio-1.3 §5.11.4].
void VirtioFs::read_config(u64 offset, std::span<std::byte> out) {
  std::array<std::byte, kTagBytes + 4> config{};
  std::memcpy(config.data(), tag_.data(), tag_.size());
  config[kTagBytes] = std::byte{1};
  if (offset >= config.size()) return;
  const std::size_t size = std::min<std::size_t>(out.size(), config.size() - offset);
  std::memcpy(out.data(), config.data() + offset, size);
}

void VirtioFs::attach(DeviceHost& host, std::span<Queue> queues) {
  host_ = &host;
  queues_ = queues;
  core_.set_source(this);
}

void VirtioFs::start(u64) {
  core_.paused([this] { started_ = true; });
  core_.kick();
}

void VirtioFs::stop_queue(unsigned index) {
  for (unsigned lane = 0; lane < lanes_.size(); ++lane) {
    Pending& pending = lanes_[lane];
    if (!pending.chain || pending.queue != index) continue;
    core_.give_up(lane);
    queues_[index].drop(std::move(*pending.chain));
    pending.chain.reset();
  }
}

std::optional<Chain> VirtioFs::pop(unsigned index) {
  Queue& queue = queues_[index];
  do {
    if (std::optional<Chain> chain = queue.pop()) {
      queue.disable_notifications();
      return chain;
    }
  } while (queue.enable_notifications());
  return std::nullopt;
}

// A message that is none. Where an answer can be given it is one.
void VirtioFs::refuse(unsigned index, Chain chain, u64 unique) {
  core_.counters()[FsCore::kMalformed].add();
  const fuse_out_header answer{sizeof answer, -EINVAL, unique};
  const bool room = chain.writable_bytes() >= sizeof answer;
  if (room) chain.write(std::as_bytes(std::span{&answer, 1}));
  queues_[index].push(std::move(chain), room ? sizeof answer : 0);
  used_[index] = true;
}

bool VirtioFs::next(FsRequest& request) {
  if (!started_) return false;
  constexpr int kMostRefused = 64;  // of a guest that sends nothing else; the next turn goes on
  for (int refused = 0; refused < kMostRefused;) {
    unsigned index = kHigh;
    std::optional<Chain> chain = pop(kHigh);
    if (!chain) chain = pop(index = kRequests);
    if (!chain) {
      signal();
      return false;
    }
    request.header = {};
    const u64 length = chain->readable_bytes();
    if (length > FsCore::kMaxMessage || !chain->take(std::as_writable_bytes(std::span{&request.header, 1})) ||
        request.header.len != length || (request.wants_reply() && chain->writable_bytes() < sizeof(fuse_out_header))) {
      refuse(index, std::move(*chain), request.header.unique);
      chain.reset();
      ++refused;
      continue;
    }
    Pending& pending = lanes_[request.lane];
    request.rest.assign(chain->readable().begin(), chain->readable().end());
    pending.chain.emplace(std::move(*chain));
    pending.queue = index;
    return true;
  }
  signal();
  core_.kick();
  return false;
}

std::span<const IoBuffer> VirtioFs::reply_space(unsigned lane, u32 bytes) {
  const Chain& chain = *lanes_[lane].chain;
  return chain.writable_bytes() >= bytes ? chain.writable() : std::span<const IoBuffer>{};
}

void VirtioFs::done(unsigned lane, u32 bytes) {
  Pending& pending = lanes_[lane];
  queues_[pending.queue].push(std::move(*pending.chain), bytes);
  pending.chain.reset();
  used_[pending.queue] = true;
}

void VirtioFs::signal() {
  bool wanted = false;
  for (unsigned index = 0; index < queues_.size(); ++index)
    if (std::exchange(used_[index], false)) wanted |= queues_[index].interrupt_wanted();
  if (wanted) host_->interrupt_used();
}

}  // namespace bulkhead::device::virtio
