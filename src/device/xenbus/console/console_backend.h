// A zone's further consoles, hvc1 and up: each a PvConsole that the guest's driver sets up through xenbus.
// On the loop's thread; the bytes move as PvConsole says.
#pragma once
#include "device/xenbus/bus/backend.h"
#include "device/xenbus/console/pv_console.h"
#include "device/xenbus/ring/granted_page.h"

namespace bulkhead::device::xenbus {

class XenConsoleBackend final : public Backend {
 public:
  // `backend`, `grants` and `events` outlive us. `name` is for the guest's eyes and may be empty. Its number on the bus
  // is 1 or more: 0 is the primary console, which is not on the bus.
  XenConsoleBackend(ConsoleBackend* backend, GrantPort& grants, EventPort& events, std::string name = {});
  ~XenConsoleBackend() override { disconnect(); }

  std::string_view kind() const override { return "console"; }
  Nodes backend_nodes() const override;
  Nodes frontend_nodes() const override;
  Result<Nodes> connect(const NodeReader& frontend) override;
  void disconnect() override;

  PvConsole& console() { return console_; }

 private:
  GrantPort& grants_;
  EventPort& events_;
  const std::string name_;
  GrantedPage page_;
  PvConsole console_;
};

}  // namespace bulkhead::device::xenbus
