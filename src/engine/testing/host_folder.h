// A folder that looks to probe_host() like the root of some host.
#pragma once
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "engine/probe.h"

namespace bulkhead::engine::testing {

class HostFolder {
 public:
  HostFolder() {
    char pattern[] = "/tmp/bulkhead-host-XXXXXX";
    root_ = ::mkdtemp(pattern);
    for (const char* const part : {"/dev/xen", "/proc/xen", "/sys/hypervisor/properties"})
      std::filesystem::create_directories(root_ + part);
  }
  ~HostFolder() { std::filesystem::remove_all(root_); }
  HostFolder(const HostFolder&) = delete;
  HostFolder& operator=(const HostFolder&) = delete;

  HostFolder& put(const std::string& path, const std::string& text = "") {
    std::ofstream{root_ + path} << text;
    return *this;
  }
  HostFolder& flags(const std::string& names) {
    return put("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu " + names + " de\n");
  }
  // Dom0, with these in its hypervisor's capabilities.
  HostFolder& xen(const std::string& capabilities) {
    return put("/sys/hypervisor/type", "xen\n")
        .put("/proc/xen/capabilities", "control_d\n")
        .put("/dev/xen/privcmd")
        .put("/sys/hypervisor/properties/capabilities", capabilities + "\n");
  }

  std::string path(const std::string& inside) const { return root_ + inside; }
  HostEngines probe() const { return probe_host(root_); }
  HostEngine probe(EngineKind kind) const { return probe().of(kind); }

 private:
  std::string root_;
};

}  // namespace bulkhead::engine::testing
