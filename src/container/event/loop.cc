#include "container/event/loop.h"

#include <poll.h>

#include <algorithm>

namespace bulkhead::container {
namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;

}  // namespace

void Loop::watch(int fd, short events, Ready ready) {
  watched_[fd] = {events, std::make_shared<Ready>(std::move(ready)), next_number_++};
}

void Loop::change(int fd, short events) {
  if (const auto found = watched_.find(fd); found != watched_.end()) found->second.events = events;
}

void Loop::forget(int fd) { watched_.erase(fd); }

u64 Loop::after(Nanoseconds wait, Work work) {
  timers_[next_number_] = {clock_.now() + wait, std::move(work)};
  return next_number_++;
}

void Loop::cancel(u64 number) { timers_.erase(number); }

void Loop::soon(Work work) { soon_.push_back(std::move(work)); }

int Loop::wait_ms() const {
  if (!soon_.empty()) return 0;
  if (timers_.empty()) return -1;
  const auto first =
      std::ranges::min_element(timers_, {}, [](const auto& entry) { return entry.second.when; })->second.when;
  const Nanoseconds now = clock_.now();
  return first <= now ? 0 : static_cast<int>(std::min<Nanoseconds>((first - now) / kMillisecond + 1, 1'000'000));
}

void Loop::run_due() {
  for (Work& work : std::exchange(soon_, {})) work();
  const Nanoseconds now = clock_.now();
  std::vector<u64> due;
  for (const auto& [number, timer] : timers_)
    if (timer.when <= now) due.push_back(number);
  for (const u64 number : due) {
    const auto found = timers_.find(number);
    if (found == timers_.end()) continue;  // one before cancelled it
    const Work work = std::move(found->second.work);
    timers_.erase(found);
    work();
  }
}

void Loop::run() {
  while (!stopped_) {
    std::vector<pollfd> fds;
    std::vector<u64> numbers;
    for (const auto& [fd, watched] : watched_) {
      fds.push_back({fd, watched.events, 0});
      numbers.push_back(watched.number);
    }
    ::poll(fds.data(), fds.size(), wait_ms());
    for (std::size_t i = 0; i < fds.size() && !stopped_; ++i) {
      if (fds[i].revents == 0) continue;
      const auto found = watched_.find(fds[i].fd);
      if (found == watched_.end() || found->second.number != numbers[i]) continue;  // another one by now
      const auto ready = found->second.ready;                                       // it may remove itself
      (*ready)(fds[i].revents);
    }
    if (!stopped_) run_due();
  }
}

}  // namespace bulkhead::container
