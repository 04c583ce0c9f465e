#include "device/xenbus/console/console_backend.h"

namespace bulkhead::device::xenbus {
namespace {

constexpr char kLimit[] = "1048576";  // bytes of output that xenconsoled would keep; we keep none but say what it says

}  // namespace

XenConsoleBackend::XenConsoleBackend(ConsoleBackend* backend, GrantPort& grants, EventPort& events, std::string name)
    : grants_{grants}, events_{events}, name_{std::move(name)}, console_{backend} {}

Nodes XenConsoleBackend::backend_nodes() const {
  Nodes nodes{{"protocol", "vt100"}};
  if (!name_.empty()) nodes.emplace_back("name", name_);
  return nodes;
}

Nodes XenConsoleBackend::frontend_nodes() const {
  return {{"protocol", "vt100"}, {"limit", kLimit}, {"type", "xenconsoled"}, {"output", "pty"}, {"tty", ""}};
}

Result<Nodes> XenConsoleBackend::connect(const NodeReader& frontend) {
  disconnect();
  const std::optional<u32> reference = frontend.number("ring-ref");
  std::optional<u32> port = frontend.number("port");
  if (!port) port = frontend.number("event-channel");
  if (!reference || !port) return fail("ring-ref or port is no number");
  page_ = GrantedPage{grants_, *reference, PageAccess::kWrite};
  if (!page_) return fail("ring-ref: reference {} is not granted to us", *reference);
  if (console_.connect(page_.data(), events_, *port)) return {};
  page_ = {};
  return fail("port {} is not there for us", *port);
}

void XenConsoleBackend::disconnect() {
  console_.disconnect();
  page_ = {};
}

void publish_primary_console(StorePort& store, u16 domain, u64 frame, u32 port) {
  const std::string path = fmt::format("/local/domain/{}/console", domain);
  const std::string backend = fmt::format("/local/domain/0/backend/console/{}/0", domain);
  const Nodes front{
      {"backend", backend}, {"backend-id", "0"}, {"type", "xenconsoled"},        {"output", "pty"},
      {"tty", ""},          {"limit", kLimit},   {"port", std::to_string(port)}, {"ring-ref", std::to_string(frame)}};
  const Nodes back{{"frontend", path},
                   {"frontend-id", std::to_string(domain)},
                   {"online", "1"},
                   {"state", "1"},
                   {"protocol", "vt100"}};
  store.atomically([&](StorePort& change) {
    for (const auto& [name, value] : front) change.write(path + "/" + name, value);
    for (const auto& [name, value] : back) change.write(backend + "/" + name, value);
  });
}

}  // namespace bulkhead::device::xenbus
