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

}  // namespace bulkhead::device::xenbus
