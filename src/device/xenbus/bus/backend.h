// The backend half of one split device, as the bus drives it.
// All on the loop's thread. May wait for the device's own I/O, never for the guest.
#pragma once
#include <string>
#include <string_view>

#include "base/result.h"
#include "device/xenbus/bus/nodes.h"

namespace bulkhead::device::xenbus {

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view kind() const = 0;  // the directory: "vbd", "console"
  // What a toolstack says about the device, besides what it says about all.
  virtual Nodes backend_nodes() const { return {}; }
  virtual Nodes frontend_nodes() const { return {}; }
  // What the backend can do; the frontend reads it before it sets up its rings.
  virtual Nodes features() const { return {}; }
  // The frontend has set up what it says: maps, binds and begins. Returns what the frontend has to know of the device;
  // an error is the guest's mistake, in words for whoever inspects the zone.
  virtual Result<Nodes> connect(const NodeReader& frontend) = 0;
  // Ends what connect() began, and returns when nothing of the guest's is mapped or bound. Also when not connected.
  virtual void disconnect() = 0;
};

}  // namespace bulkhead::device::xenbus
