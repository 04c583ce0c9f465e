#include "device/xenbus/bus/backend_bus.h"

#include <algorithm>

namespace bulkhead::device::xenbus {
namespace {

using Access = StorePort::GuestAccess;

constexpr u32 kLastState = static_cast<u32>(State::kReconfigured);

std::string number(State state) { return std::to_string(static_cast<u32>(state)); }

void write_all(StorePort& store, const std::string& directory, const Nodes& nodes, Access access) {
  for (const auto& [name, value] : nodes) store.write(directory + "/" + name, value, access);
}

void remove_if_empty(StorePort& store, const std::string& directory) {
  if (store.list(directory).empty()) store.remove(directory);
}

std::string parent(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

BackendBus::BackendBus(Loop& loop, StorePort& store, u16 domain, Nanoseconds patience)
    : loop_{loop}, store_{store}, domain_{domain}, patience_{patience} {}

BackendBus::~BackendBus() {
  loop_.run([this] {
    for (const DevicePtr& device : devices_) {
      store_.unwatch(device->watch);
      disconnect(*device);
      device->gone = true;  // tasks that still hold it find nothing to do
      device->backend.reset();
      for (const Request& request : device->waiting) request.done(Unplugged::kForced);
    }
  });
}

BackendBus::DevicePtr BackendBus::find(std::string_view kind, u32 id) const {
  const auto found = std::ranges::find_if(devices_, [&](const DevicePtr& d) { return d->kind == kind && d->id == id; });
  return found == devices_.end() ? nullptr : *found;
}

Result<void> BackendBus::add(u32 id, std::unique_ptr<Backend> backend, std::function<void()> gone) {
  Result<void> result;
  loop_.run([&] {
    const std::string kind{backend->kind()};
    if (find(kind, id) != nullptr) {
      result = fail("adding the Xen device {}/{}: the zone has one already; choose another number", kind, id);
      return;
    }
    auto device = std::make_shared<Device>();
    device->kind = kind;
    device->id = id;
    device->backend_path = fmt::format("/local/domain/0/backend/{}/{}/{}", kind, domain_, id);
    device->frontend_path = fmt::format("/local/domain/{}/device/{}/{}", domain_, kind, id);
    device->backend = std::move(backend);
    device->on_gone = std::move(gone);
    write_nodes(*device);
    device->state = State::kInitialising;
    devices_.push_back(device);
    offer(*device);
    watch(device);
  });
  return result;
}

// The guest may change what is in its device's directory, but not make devices: the directories above are ours.
void BackendBus::make_kind_directory(std::string_view kind) {
  const std::string devices = fmt::format("/local/domain/{}/device", domain_);
  for (const std::string& path : {devices, fmt::format("{}/{}", devices, kind)})
    if (!store_.read(path)) store_.write(path, "", Access::kRead);
}

// All at once: a frontend that sees its directory must find everything in it, and the backend's beside it.
void BackendBus::write_nodes(const Device& device) {
  make_kind_directory(device.kind);
  const Nodes backend{{"frontend", device.frontend_path},
                      {"frontend-id", std::to_string(domain_)},
                      {"online", "1"},
                      {"state", number(State::kInitialising)}};
  const Nodes frontend{{"backend", device.backend_path}, {"backend-id", "0"}, {"state", number(State::kInitialising)}};
  store_.atomically([&](StorePort& store) {
    store.remove(device.frontend_path);
    store.remove(device.backend_path);
    store.write(device.backend_path, "", Access::kRead);
    write_all(store, device.backend_path, backend, Access::kRead);
    write_all(store, device.backend_path, device.backend->backend_nodes(), Access::kRead);
    store.write(device.frontend_path, "", Access::kOwner);
    write_all(store, device.frontend_path, frontend, Access::kOwner);
    write_all(store, device.frontend_path, device.backend->frontend_nodes(), Access::kOwner);
  });
}

void BackendBus::remove_nodes(const Device& device) {
  store_.atomically([&](StorePort& store) {
    for (const std::string& path : {device.frontend_path, device.backend_path}) {
      store.remove(path);
      remove_if_empty(store, parent(path));
    }
    remove_if_empty(store, parent(parent(device.backend_path)));
  });
}

void BackendBus::set_state(Device& device, State state) {
  device.state = state;
  store_.write(device.backend_path + "/state", number(state));
}

void BackendBus::watch(const DevicePtr& device) {
  device->watch = store_.watch(device->frontend_path + "/state", [this, device](const std::string&) {
    // However often the guest writes, one look is enough.
    if (device->queued.exchange(true)) return;
    loop_.post([this, device] {
      if (!device->gone) frontend_changed(device);
    });
  });
}

std::optional<State> BackendBus::frontend_state(const Device& device) {
  const std::optional<std::string> text = store_.read(device.frontend_path + "/state");
  if (!text) return State::kUnknown;
  const std::optional<u32> value = parse_number(*text);
  if (value && *value <= kLastState) return static_cast<State>(*value);
  counters_[kBadStates].add();
  return std::nullopt;
}

void BackendBus::frontend_changed(const DevicePtr& device) {
  device->queued = false;  // before we look: what is written from here on makes another task
  switch (frontend_state(*device).value_or(State::kInitWait)) {
    case State::kInitialising:
      return device->online ? offer(*device) : closed(device);
    case State::kInitialised:
    case State::kConnected:
      return connect(*device);
    case State::kClosing:
      if (device->state != State::kClosing) set_state(*device, State::kClosing);
      return;  // what is on the ring is still served
    case State::kClosed:
    case State::kUnknown:
      return closed(device);
    case State::kInitWait:
    case State::kReconfiguring:
    case State::kReconfigured:
      return;
  }
}

// The frontend begins, perhaps once more: after a close, or in a new kernel that knows nothing of an old connection.
void BackendBus::offer(Device& device) {
  disconnect(device);
  if (device.state == State::kInitWait) return;
  device.problem.clear();
  store_.atomically([&](StorePort& store) {
    write_all(store, device.backend_path, device.backend->features(), Access::kRead);
    store.write(device.backend_path + "/state", number(State::kInitWait));
  });
  device.state = State::kInitWait;
}

void BackendBus::connect(Device& device) {
  if (device.connected || !device.online || device.state == State::kClosing) return;
  const Result<Nodes> properties = device.backend->connect(NodeReader{store_, device.frontend_path});
  if (!properties) {
    counters_[kRefusals].add();
    device.problem = properties.error().message;
    return set_state(device, State::kClosing);
  }
  counters_[kConnects].add();
  device.connected = true;
  device.problem.clear();
  store_.atomically([&](StorePort& store) {
    write_all(store, device.backend_path, *properties, Access::kRead);
    store.write(device.backend_path + "/state", number(State::kConnected));
  });
  device.state = State::kConnected;
}

void BackendBus::disconnect(Device& device) {
  if (!device.connected) return;
  device.backend->disconnect();
  device.connected = false;
  counters_[kDisconnects].add();
}

void BackendBus::closed(const DevicePtr& device) {
  disconnect(*device);
  if (device->state != State::kClosed) set_state(*device, State::kClosed);
  if (!device->online) finish(device, Unplugged::kGone);
}

std::vector<BackendBus::Status> BackendBus::devices() {
  std::vector<Status> list;
  loop_.run([&] {
    for (const DevicePtr& device : devices_)
      list.push_back({device->kind, device->id, device->state, !device->online, device->problem});
  });
  return list;
}

}  // namespace bulkhead::device::xenbus
