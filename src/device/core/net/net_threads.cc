// The pairs' threads: when they work, when they sleep, and how they are held still.
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/assert.h"
#include "base/thread.h"
#include "device/core/net/net_core.h"

namespace bulkhead::device {

using net::Offloads;

namespace {

constexpr unsigned kFramesHere = 4;
constexpr u64 kBytesHere = 2048;

}  // namespace

NetCore::NetCore(net::End& end, const NetSettings& settings)
    : end_{end}, settings_{settings}, out_buckets_{settings.out}, in_buckets_{settings.in} {
  const unsigned count = std::clamp(std::min(settings.queues, end.queue_count()), 1u, kMaxPairs);
  for (unsigned i = 0; i < count; ++i) {
    pairs_.push_back(std::make_unique<Pair>());
    pairs_[i]->index = i;
    pairs_[i]->queue = &end.queue(i);
    pairs_[i]->wake = UniqueFd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    BH_ASSERT(pairs_[i]->wake);
  }
}

NetCore::~NetCore() {
  exit_ = true;
  for (const auto& pair : pairs_) wake(*pair);
  for (const auto& pair : pairs_)
    if (pair->thread.joinable()) pair->thread.join();
}

void NetCore::start(NetRings& rings, unsigned pairs, Offloads out, Offloads in, Tagged tagged) {
  paused([&] {
    rings_ = &rings;
    out_allowed_ = out;
    tagged_ = tagged;
    set_accepted(in);
    set_pairs(pairs);
  });
  for (const auto& pair : pairs_) {
    if (pair->thread.joinable()) continue;
    pair->thread = start_thread(fmt::format("bh-net-{}", pair->index), [this, one = pair.get()] { run(*one); });
  }
}

void NetCore::stop() {
  paused([this] { halt(); });
}

void NetCore::halt() {
  rings_ = nullptr;
  active_ = 0;
  for (const auto& pair : pairs_) {
    forget_out(pair->index);
    forget_in(*pair);
  }
}

void NetCore::set_link_changed(std::function<void()> changed) {
  paused([&] { link_changed_ = std::move(changed); });
}

void NetCore::forget_in(Pair& pair) {
  pair.in_held = pair.wait_room = false;
  pair.in_segments = {};
}

void NetCore::forget_out(unsigned pair) {
  pairs_[pair]->out_held = pairs_[pair]->wait_writable = false;
  pairs_[pair]->out_segments = {};
}

void NetCore::set_pairs(unsigned pairs) {
  active_ = std::clamp(pairs, 1u, pair_count());
  end_.set_active(active_);
}

void NetCore::set_accepted(Offloads in) {
  in_accepted_ = in;
  end_.set_accepted(in);
}

void NetCore::set_end_serves(Offloads in, unsigned pairs) {
  end_.set_accepted(in);
  end_.set_active(std::clamp(pairs, 1u, pair_count()));
}

void NetCore::wake(Pair& pair) {
  if (!pair.asleep.exchange(false)) return;
  const u64 one = 1;
  (void)!::write(pair.wake.get(), &one, sizeof one);
}

void NetCore::kick_out(unsigned pair) {
  Pair& one = *pairs_[pair];
  Nanoseconds none = 0;
  one.out_kick.compare_exchange_strong(none, clock_.now());
  if (one.asleep.load() && send_here(one)) return;
  one.in_kick.store(true);
  wake(one);
}

// True: all is sent, and the thread has nothing new to wait for.
bool NetCore::send_here(Pair& pair) {
  const std::unique_lock lock{pair.mutex, std::try_to_lock};
  if (!lock || pauses_.load() != 0 || rings_ == nullptr || pair.index >= active_ || pair.in_held) return false;
  bool done = false;
  pair.wait_writable = false;
  if (pair.queue->unflushed()) return false;
  for (unsigned frames = 0; frames < kFramesHere && !done; ++frames) {
    if (!pair.out_held && !take_out(pair)) done = true;
    if (!pair.out_held) continue;
    if (pair.frame.bytes > kBytesHere || out_buckets_.active || !pair.out_next.empty()) break;
    if (!pair.prepared && !prepare_out(pair)) {
      finish_out(pair, kBad);
      continue;
    }
    const net::Sent sent = send_held(pair);
    if (sent == net::Sent::kFull || sent == net::Sent::kGone) break;  // the thread will find the same
    finish_out(pair, sent == net::Sent::kDone ? kPackets : kDropped);
  }
  rings_->signal(pair.index);
  return done && !pair.queue->unflushed();
}

void NetCore::kick_in(unsigned pair) {
  pairs_[pair]->in_kick.store(true);
  wake(*pairs_[pair]);
}

void NetCore::paused(const std::function<void()>& change) {
  const std::lock_guard one_pause{pause_mutex_};
  pauses_.fetch_add(1);
  for (const auto& pair : pairs_) pair->mutex.lock();
  change();
  for (const auto& pair : pairs_) pair->mutex.unlock();
  pauses_.fetch_sub(1);
  pauses_.notify_all();
  for (const auto& pair : pairs_) {  // what they wait for may be another thing now
    pair->in_kick.store(true);
    wake(*pair);
  }
}

void NetCore::run(Pair& pair) {
  while (!exit_) {
    while (const u32 pauses = pauses_.load()) pauses_.wait(pauses);  // lets paused() have the lock
    bool busy;
    {
      const std::lock_guard lock{pair.mutex};
      busy = turn(pair);
    }
    if (!busy) wait(pair);
  }
}

// `asleep` first and then a last look, so that a kick is either seen by the look or writes to `wake`.
void NetCore::wait(Pair& pair) {
  pollfd entries[2] = {{pair.wake.get(), POLLIN, 0}, {-1, 0, 0}};
  timespec left{};
  bool timed = false;
  {
    const std::lock_guard lock{pair.mutex};
    const bool works = rings_ != nullptr && pair.index < active_ && link_up();
    if (works && !pair.in_held) entries[1].events |= POLLIN;
    if (works && (pair.wait_writable || pair.queue->unflushed())) entries[1].events |= POLLOUT;
    // Also where nothing is wanted: an end that dies says POLLHUP.
    if (works && entries[1].events != 0) entries[1].fd = pair.queue->descriptor();
    if (works && pair.wake_at != ~Nanoseconds{0}) {
      const Nanoseconds now = clock_.now(), time = pair.wake_at > now ? pair.wake_at - now : 0;
      left = {static_cast<time_t>(time / 1'000'000'000), static_cast<long>(time % 1'000'000'000)};
      timed = true;
    }
  }
  pair.asleep.store(true);
  if (!pair.in_kick.load() && !exit_) ::ppoll(entries, 2, timed ? &left : nullptr, nullptr);
  pair.asleep.store(false);
  u64 times;
  if (entries[0].revents != 0) (void)!::read(pair.wake.get(), &times, sizeof times);
}

}  // namespace bulkhead::device
