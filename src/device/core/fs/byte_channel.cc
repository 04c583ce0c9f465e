#include "device/core/fs/byte_channel.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bulkhead::device {
namespace {

// Moves what is left to the front once half has been taken, or if it must be.
void close_up(std::vector<std::byte>& bytes, std::size_t& first, bool now = false) {
  if (!now && first < bytes.size() && first < bytes.size() / 2) return;
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(first));
  first = 0;
}

}  // namespace

FsByteChannel::FsByteChannel(FsCore& core) : core_{core} { core_.set_source(this); }
FsByteChannel::~FsByteChannel() { core_.set_source(nullptr); }

void FsByteChannel::set_callbacks(std::function<void()> readable, std::function<void()> writable) {
  readable_ = std::move(readable);
  writable_ = std::move(writable);
}

void FsByteChannel::guest_open(bool) {
  const Lock lock{mutex_};
  incoming_.clear();
  outgoing_.clear();
  incoming_first_ = outgoing_first_ = 0;
  broken_ = full_ = false;
  ++connection_;
}

std::size_t FsByteChannel::write(std::span<const std::byte> data) {
  std::size_t taken;
  {
    const Lock lock{mutex_};
    if (broken_) return data.size();
    close_up(incoming_, incoming_first_, incoming_.size() + data.size() > kIncoming);
    taken = std::min(data.size(), kIncoming - std::min(kIncoming, incoming_.size()));
    incoming_.insert(incoming_.end(), data.begin(), data.begin() + static_cast<std::ptrdiff_t>(taken));
    full_ = taken < data.size();
  }
  core_.kick();
  return taken;
}

std::size_t FsByteChannel::read(std::span<std::byte> out) {
  std::size_t size;
  bool was_full;
  {
    const Lock lock{mutex_};
    was_full = outgoing_.size() - outgoing_first_ >= kOutgoing;
    size = std::min(out.size(), outgoing_.size() - outgoing_first_);
    if (size > 0) std::memcpy(out.data(), outgoing_.data() + outgoing_first_, size);
    outgoing_first_ += size;
    close_up(outgoing_, outgoing_first_);
  }
  if (was_full) core_.kick();
  return size;
}

bool FsByteChannel::take_message(FsRequest& request) {
  while (!broken_) {
    const std::span<const std::byte> bytes = std::span{incoming_}.subspan(incoming_first_);
    if (bytes.size() < sizeof request.header) return false;
    std::memcpy(&request.header, bytes.data(), sizeof request.header);
    const u32 length = request.header.len;
    if (length < sizeof request.header || length > FsCore::kMaxMessage) {
      broken_ = true;
      core_.counters()[FsCore::kMalformed].add();
      return false;
    }
    if (bytes.size() < length) return false;
    incoming_first_ += length;
    if (request.header.opcode == FUSE_INTERRUPT) continue;  // nothing waits, so nothing is interrupted
    Pending& pending = lanes_[request.lane];
    pending.request.assign(bytes.begin() + sizeof request.header, bytes.begin() + length);
    pending.connection = connection_;
    request.rest.clear();
    if (!pending.request.empty()) request.rest.push_back({pending.request.data(), pending.request.size()});
    return true;
  }
  return false;
}

bool FsByteChannel::next(FsRequest& request) {
  bool got, room;
  {
    const Lock lock{mutex_};
    // Who does not read its replies has no more requests carried out.
    got = outgoing_.size() - outgoing_first_ < kOutgoing && take_message(request);
    close_up(incoming_, incoming_first_);
    room = got && std::exchange(full_, false);
  }
  if (room && writable_) writable_();
  return got;
}

std::span<const IoBuffer> FsByteChannel::reply_space(unsigned lane, u32 bytes) {
  Pending& pending = lanes_[lane];
  pending.reply.resize(bytes);
  pending.space = {pending.reply.data(), bytes};
  return {&pending.space, 1};
}

void FsByteChannel::done(unsigned lane, u32 bytes) {
  const Pending& pending = lanes_[lane];
  const Lock lock{mutex_};
  if (pending.connection != connection_) return;
  outgoing_.insert(outgoing_.end(), pending.reply.begin(), pending.reply.begin() + bytes);
}

void FsByteChannel::signal() {
  if (readable_) readable_();
}

}  // namespace bulkhead::device
