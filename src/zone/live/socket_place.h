// The folder in which running zones have their sockets, one NAME.sock each, and nobody but their owner may look.
// Names are given out under a lock on the folder; a socket on which nobody listens is a dead zone's and is removed by
// whoever comes next.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace bulkhead::zone {

// root: /run/bulkhead/zones. Others: $XDG_RUNTIME_DIR/bulkhead/zones, or /tmp/bulkhead-UID/zones without one.
// BULKHEAD_RUNTIME_DIR, if set, is instead of /run/bulkhead.
std::string socket_folder();

// A listening socket with a name, which is free again when this is destroyed.
class SocketPlace {
 public:
  // nullopt: another zone that runs has the name. Errors: the folder cannot be made or is not ours alone.
  static Result<std::optional<SocketPlace>> take(const std::string& folder, const std::string& name);
  SocketPlace(SocketPlace&&) noexcept = default;
  SocketPlace& operator=(SocketPlace&&) = delete;
  ~SocketPlace() { leave(); }

  int fd() const { return listening_.get(); }
  const std::string& name() const { return name_; }
  void free_name();  // others may take it; those who come by it find nobody
  void leave();      // frees the name and listens no more

 private:
  SocketPlace(UniqueFd folder, UniqueFd listening, std::string name)
      : folder_{std::move(folder)}, listening_{std::move(listening)}, name_{std::move(name)} {}
  UniqueFd folder_, listening_;
  std::string name_;
  bool freed_ = false;
};

// Errors: no zone of that name runs.
Result<UniqueFd> connect_to_zone(const std::string& folder, const std::string& name);
// The zones that run, sorted; removes what dead ones left.
std::vector<std::string> list_zones(const std::string& folder);

}  // namespace bulkhead::zone
