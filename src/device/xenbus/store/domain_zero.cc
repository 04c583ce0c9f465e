#include "device/xenbus/store/domain_zero.h"

#include <charconv>
#include <optional>
#include <utility>

namespace bulkhead::device::xenbus::store {
namespace {

Permissions permissions_for(Domid guest, StorePort::GuestAccess access) {
  switch (access) {
    case StorePort::GuestAccess::kNone:
      return {{kDomainZero, Access::kNone}};
    case StorePort::GuestAccess::kRead:
      return {{kDomainZero, Access::kNone}, {guest, Access::kRead}};
    case StorePort::GuestAccess::kReadWrite:
      return {{kDomainZero, Access::kNone}, {guest, Access::kReadWrite}};
    case StorePort::GuestAccess::kOwner:
      break;
  }
  return {{guest, Access::kNone}, {kDomainZero, Access::kRead}};
}

}  // namespace

class DomainZero::InTransaction final : public StorePort {
 public:
  InTransaction(DomainZero& outer, u32 transaction) : outer_{outer}, transaction_{transaction} {}

  std::optional<std::string> read(std::string_view path) override {
    Reply<std::string> value = outer_.session_->read(transaction_, path);
    return value ? std::optional{std::move(*value)} : std::nullopt;
  }
  std::vector<std::string> list(std::string_view path) override {
    Reply<Session::Listing> listing = outer_.session_->list(transaction_, path);
    return listing ? std::move(listing->names) : std::vector<std::string>{};
  }
  void write(std::string_view path, std::string_view value, GuestAccess guest_access) override {
    outer_.write_in(transaction_, path, value, guest_access);
  }
  void remove(std::string_view path) override { (void)outer_.session_->remove(transaction_, path); }
  void atomically(const std::function<void(StorePort&)>& change) override { change(*this); }
  WatchId watch(std::string path, std::function<void(const std::string&)> on_change) override {
    return outer_.watch(std::move(path), std::move(on_change));
  }
  void unwatch(WatchId id) override { outer_.unwatch(id); }

 private:
  DomainZero& outer_;
  const u32 transaction_;
};

DomainZero::DomainZero(Store& store, Domid guest) : store_{store}, guest_{guest}, events_{kEventsKept} {
  session_ = store.connect(kDomainZero, *this);
  thread_ = std::thread{[this] { dispatch(); }};
}

DomainZero::~DomainZero() {
  {
    std::lock_guard lock{mutex_};
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  session_.reset();
}

std::optional<std::string> DomainZero::read(std::string_view path) { return InTransaction{*this, 0}.read(path); }

std::vector<std::string> DomainZero::list(std::string_view path) { return InTransaction{*this, 0}.list(path); }

void DomainZero::write(std::string_view path, std::string_view value, GuestAccess guest_access) {
  write_in(0, path, value, guest_access);
}

void DomainZero::remove(std::string_view path) { (void)session_->remove(0, path); }

void DomainZero::write_in(u32 transaction, std::string_view path, std::string_view value, GuestAccess guest_access) {
  const Permissions permissions = permissions_for(guest_, guest_access);
  (void)session_->write(transaction, path, value, &permissions);
}

void DomainZero::atomically(const std::function<void(StorePort&)>& change) {
  for (unsigned tries = 0;; ++tries) {
    std::optional<Store::Hold> hold;
    if (tries >= kTriesBeforeHold) hold.emplace(store_);
    const Reply<u32> transaction = session_->begin();
    InTransaction port{*this, *transaction};
    change(port);
    if (session_->end(*transaction, true)) return;
  }
}

StorePort::WatchId DomainZero::watch(std::string path, std::function<void(const std::string&)> on_change) {
  WatchId id = 0;
  {
    std::lock_guard lock{mutex_};
    id = ++last_id_;
    watchers_.emplace(id, std::make_shared<const Watcher>(path, std::move(on_change)));
  }
  (void)session_->watch(path, std::to_string(id));
  return id;
}

void DomainZero::unwatch(WatchId id) {
  std::shared_ptr<const Watcher> watcher;
  {
    std::lock_guard lock{mutex_};
    const auto found = watchers_.find(id);
    if (found == watchers_.end()) return;
    watcher = std::move(found->second);
    watchers_.erase(found);
  }
  (void)session_->unwatch(watcher->path, std::to_string(id));
  std::unique_lock lock{mutex_};
  if (std::this_thread::get_id() != thread_.get_id()) changed_.wait(lock, [&] { return running_ != id; });
}

void DomainZero::watch_event(const WatchRef& watch, std::string_view path) {
  switch (events_.push(watch, path)) {
    case EventQueue::Pushed::kAdded:
      break;
    case EventQueue::Pushed::kMerged:
      return;
    case EventQueue::Pushed::kCollapsed:
      store_.count(Count::kEventsCollapsed);
      break;
  }
  {
    std::lock_guard lock{mutex_};
    pending_ = true;
  }
  changed_.notify_all();
}

void DomainZero::watch_removed(const WatchRef& watch) { events_.drop(watch); }

void DomainZero::dispatch() {
  std::unique_lock lock{mutex_};
  while (!stop_) {
    pending_ = false;
    const std::optional<EventQueue::Event> event = events_.pop();
    if (!event) {
      changed_.wait(lock, [this] { return pending_ || stop_; });
      continue;
    }
    const std::string& token = event->first->token;
    WatchId id = 0;
    std::from_chars(token.data(), token.data() + token.size(), id);
    const auto found = watchers_.find(id);
    if (found == watchers_.end()) continue;
    const std::shared_ptr<const Watcher> watcher = found->second;
    running_ = id;
    lock.unlock();
    watcher->on_change(event->second);
    lock.lock();
    running_ = 0;
    changed_.notify_all();
  }
}

}  // namespace bulkhead::device::xenbus::store
