#include "device/xenbus/store/event_queue.h"

namespace bulkhead::device::xenbus::store {

bool EventQueue::add(const WatchRef& watch, std::string_view path) {
  const auto [place, added] = waiting_.emplace(watch, path);
  if (!added) return false;
  order_.push_back(place);
  bytes_ += path.size();
  return true;
}

EventQueue::Pushed EventQueue::push(const WatchRef& watch, std::string_view path) {
  Lock lock{mutex_};
  if (order_.size() < kept_ && bytes_ + path.size() <= kMaxBytes)
    return add(watch, path) ? Pushed::kAdded : Pushed::kMerged;
  add(watch, watch->seen(watch->path));
  return Pushed::kCollapsed;
}

std::optional<EventQueue::Event> EventQueue::pop() {
  Lock lock{mutex_};
  if (order_.empty()) return std::nullopt;
  Event event = std::move(waiting_.extract(order_.front()).value());
  order_.pop_front();
  bytes_ -= event.second.size();
  return event;
}

void EventQueue::drop(const WatchRef& watch) {
  Lock lock{mutex_};
  std::deque<Waiting::iterator> stay;
  for (const Waiting::iterator place : order_) {
    if (place->first != watch) {
      stay.push_back(place);
      continue;
    }
    bytes_ -= place->second.size();
    waiting_.erase(place);
  }
  order_ = std::move(stay);
}

void EventQueue::clear() {
  Lock lock{mutex_};
  order_.clear();
  waiting_.clear();
  bytes_ = 0;
}

std::size_t EventQueue::size() const {
  Lock lock{mutex_};
  return order_.size();
}

}  // namespace bulkhead::device::xenbus::store
