// Which engines this host could carry, proven and not guessed: a device file alone is no proof.
#pragma once
#include <array>
#include <string>

#include "engine/engine.h"

namespace bulkhead::engine {

// What the host offers for one engine, whether or not this build has that engine.
struct HostEngine {
  EngineKind kind;
  bool usable = false;      // kvm, mshv, xen: hardware virtualization, proven
  std::string reason;       // usable: what proves it; otherwise what is missing
  bool carries_pv = false;  // pv guests; on a Xen host these need no hardware virtualization
};
// In the order of preference: kvm, mshv, xen, dbt.
struct HostEngines {
  std::array<HostEngine, 4> all;
  const HostEngine& of(EngineKind kind) const { return all[static_cast<std::size_t>(kind)]; }
};

// Looks at /dev, /proc and /sys below `root` ("" is the host; a test's folder otherwise). Opens and closes device
// files, never creates a guest.
HostEngines probe_host(const std::string& root = "");

// "root", or "root and members of the group kvm": who may read and write the file at `path`.
std::string who_may_open(const std::string& path);

}  // namespace bulkhead::engine
