#include "device/xenbus/channel/channel.h"

#include <utility>

namespace bulkhead::device::xenbus {
namespace {

constexpr u64 kDrain = 1, kFill = 2;

}  // namespace

Channel::Channel(Loop& loop, StorePort& store, GrantPort& grants, EventPort& events, std::string directory,
                 ConsoleBackend* backend)
    : loop_{loop},
      store_{store},
      grants_{grants},
      events_{events},
      directory_{std::move(directory)},
      core_{{ConsolePortSpec{.name = "", .backend = backend}}},
      self_{std::make_shared<std::atomic<Channel*>>(this)},
      work_{[this](u64 bits) { work(bits); }} {
  core_.listen([this](unsigned, ConsoleCore::Event event) {
    if (event == ConsoleCore::Event::kReadable) work_.post(kFill);
    if (event == ConsoleCore::Event::kWritable) work_.post(kDrain);
  });
  store_.write(directory_, "", StorePort::GuestAccess::kOwner);
  watch_ = store_.watch(directory_, [this, self = self_](const std::string&) {
    if (queued_.exchange(true)) return;
    loop_.post([self] {
      if (Channel* const channel = self->load()) channel->offered();
    });
  });
}

Channel::~Channel() {
  store_.unwatch(watch_);
  loop_.run([this] {
    self_->store(nullptr);
    disconnect();
  });
  loop_.run([] {});  // the end of a connection that hung up meanwhile
  core_.listen({});
}

// Something in the directory changed. A new offer may have the numbers of the old one, if the guest's kernel is new.
void Channel::offered() {
  queued_ = false;
  const NodeReader nodes{store_, directory_};
  const std::optional<u32> reference = nodes.number("ring-ref"), port = nodes.number("event-channel");
  bool same = false;
  work_.exclusive([&] {
    same = vchan_ != nullptr && reference == reference_ && port == port_ && vchan_->is_ours() && vchan_->server_lives();
  });
  if (same) return;
  disconnect();
  if (!reference || !port) return;  // not all is written yet, or withdrawn
  counters_[connect(*reference, *port) ? kConnects : kRefusals].add();
}

Result<void> Channel::connect(u32 reference, u32 port) {
  BH_ASSIGN(std::unique_ptr<Vchan> vchan, Vchan::map(grants_, reference));
  if (!vchan->server_lives()) return fail("the offer has been withdrawn");
  auto channel = events_.bind(port, [this] { work_.post(kDrain | kFill); });
  if (channel == nullptr) return fail("event-channel: port {} is not there for us", port);
  vchan->start(std::move(channel));
  reference_ = reference;
  port_ = port;
  work_.exclusive([&] {
    vchan_ = std::move(vchan);
    core_.guest_open(0, true);
  });
  work_.post(kDrain | kFill);
  return {};
}

void Channel::disconnect() {
  std::unique_ptr<Vchan> vchan;  // ends outside of the work, for which its callback may be waiting
  work_.exclusive([&] {
    if (vchan_ != nullptr) core_.guest_open(0, false);
    vchan = std::move(vchan_);
  });
}

bool Channel::connected() {
  bool is = false;
  work_.exclusive([&] { is = vchan_ != nullptr; });
  return is;
}

void Channel::work(u64 bits) {
  if (vchan_ == nullptr) return;
  if (bits & kDrain) drain();
  if (bits & kFill) fill();
  const bool broken = vchan_->from_guest().broken() || vchan_->to_guest().broken();
  if (broken) counters_[kBrokenRings].add();
  // What a program wrote before it ended is still read.
  if (broken || (!vchan_->server_lives() && vchan_->from_guest().readable().empty())) hang_up();
}

// The rest is the loop's: an event channel cannot end within its own call.
void Channel::hang_up() {
  core_.guest_open(0, false);
  loop_.post([self = self_, vchan = std::shared_ptr<Vchan>{std::move(vchan_)}] {});
}

void Channel::drain() {
  SharedRing& ring = vchan_->from_guest();
  while (true) {
    std::span<const std::byte> bytes = ring.readable();
    if (bytes.empty()) {
      vchan_->want_bytes();
      bytes = ring.readable();
      if (bytes.empty()) return;
    }
    const std::size_t taken = core_.from_guest(0, bytes);
    ring.advance(taken);
    if (taken > 0) vchan_->took();
    if (taken < bytes.size()) return;  // the rest when the backend calls
  }
}

void Channel::fill() {
  SharedRing& ring = vchan_->to_guest();
  while (true) {
    std::span<std::byte> room = ring.writable();
    if (room.empty()) {
      vchan_->want_room();
      room = ring.writable();
      if (room.empty()) return;
    }
    const std::size_t put = core_.to_guest(0, room);
    if (put == 0) return;
    ring.advance(put);
    vchan_->put();
  }
}

}  // namespace bulkhead::device::xenbus
