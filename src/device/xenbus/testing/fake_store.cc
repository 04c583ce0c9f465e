#include "device/xenbus/testing/fake_store.h"

#include <chrono>

namespace bulkhead::device::xenbus::testing {
namespace {

bool is_at_or_below(std::string_view path, std::string_view root) {
  return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

}  // namespace

FakeStore::FakeStore() : thread_{[this] { deliver(); }} {}

FakeStore::~FakeStore() {
  {
    const std::lock_guard lock{mutex_};
    exit_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

template <class Predicate>
bool FakeStore::wait(Predicate predicate) {
  std::unique_lock lock{mutex_};
  return changed_.wait_for(lock, std::chrono::seconds{30}, predicate);
}

bool FakeStore::await(std::string_view path, std::string_view value) {
  return wait([&] { return read(path) == value; });
}

bool FakeStore::await_absence(std::string_view path) {
  return wait([&] { return !read(path); });
}

StorePort::GuestAccess FakeStore::access(std::string_view path) {
  const std::lock_guard lock{mutex_};
  return nodes_.find(path)->second.access;
}

std::size_t FakeStore::watches() {
  const std::lock_guard lock{mutex_};
  return watches_.size();
}

std::optional<std::string> FakeStore::read(std::string_view path) {
  const std::lock_guard lock{mutex_};
  const auto found = nodes_.find(path);
  return found == nodes_.end() ? std::nullopt : std::optional{found->second.value};
}

std::vector<std::string> FakeStore::list(std::string_view path) {
  const std::lock_guard lock{mutex_};
  const std::string prefix = std::string{path} + "/";
  std::vector<std::string> names;
  for (auto at = nodes_.lower_bound(prefix); at != nodes_.end() && at->first.starts_with(prefix); ++at)
    if (at->first.find('/', prefix.size()) == std::string::npos) names.push_back(at->first.substr(prefix.size()));
  return names;
}

void FakeStore::write(std::string_view path, std::string_view value, GuestAccess guest_access) {
  const std::lock_guard lock{mutex_};
  for (std::size_t slash = path.find('/', 1); slash != std::string_view::npos; slash = path.find('/', slash + 1))
    nodes_.try_emplace(std::string{path.substr(0, slash)}, Node{"", guest_access});
  nodes_.try_emplace(std::string{path}, Node{"", guest_access}).first->second.value = value;
  fire(std::string{path});
}

void FakeStore::remove(std::string_view path) {
  const std::lock_guard lock{mutex_};
  const std::string root{path};
  for (auto at = nodes_.lower_bound(root); at != nodes_.end() && at->first.starts_with(root);) {
    if (!is_at_or_below(at->first, root)) {
      ++at;
      continue;
    }
    const std::string gone = at->first;
    at = nodes_.erase(at);
    fire(gone);
  }
}

void FakeStore::atomically(const std::function<void(StorePort&)>& change) {
  const std::lock_guard lock{mutex_};
  change(*this);
}

StorePort::WatchId FakeStore::watch(std::string path, std::function<void(const std::string&)> on_change) {
  const std::lock_guard lock{mutex_};
  const WatchId id = next_++;
  events_.emplace_back(id, path);
  watches_[id] = std::make_shared<Watch>(Watch{std::move(path), std::move(on_change)});
  changed_.notify_all();
  return id;
}

void FakeStore::unwatch(WatchId id) {
  std::unique_lock lock{mutex_};
  watches_.erase(id);
  if (std::this_thread::get_id() != thread_.get_id()) changed_.wait(lock, [&] { return delivering_ != id; });
}

void FakeStore::fire(const std::string& path) {
  for (const auto& [id, watch] : watches_)
    if (is_at_or_below(path, watch->path)) events_.emplace_back(id, path);
  changed_.notify_all();
}

void FakeStore::deliver() {
  std::unique_lock lock{mutex_};
  while (true) {
    changed_.wait(lock, [&] { return exit_ || !events_.empty(); });
    if (exit_) return;
    const auto [id, path] = events_.front();
    events_.pop_front();
    const auto found = watches_.find(id);
    if (found == watches_.end()) continue;
    const std::shared_ptr<Watch> watch = found->second;
    delivering_ = id;
    lock.unlock();
    watch->on_change(path);
    lock.lock();
    delivering_ = 0;
    changed_.notify_all();
  }
}

}  // namespace bulkhead::device::xenbus::testing
