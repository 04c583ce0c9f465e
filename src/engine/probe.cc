#include "engine/probe.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/fd.h"

namespace bulkhead::engine {
namespace {

std::string read_text(const std::string& path) {
  std::ifstream in{path};
  return {std::istreambuf_iterator<char>{in}, {}};
}

// "VT-x", "AMD-V" or nothing, by the first CPU's flags in /proc/cpuinfo.
std::string hardware_virtualization(const std::string& cpuinfo) {
  std::istringstream lines{cpuinfo};
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream flags{line.substr(line.find(':') + 1)};
    for (std::string flag; flags >> flag;) {
      if (flag == "vmx") return "VT-x";
      if (flag == "svm") return "AMD-V";
    }
    return {};
  }
  return {};
}

// Empty when it opens, otherwise why not.
std::string why_not_open(const std::string& path, const char* shown) {
  const UniqueFd fd{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
  if (fd) return {};
  if (errno == ENOENT) return std::string{"there is no "} + shown;
  return std::string{shown} + " does not open: " + std::strerror(errno);
}

HostEngine probe_kvm(const std::string& root) {
  std::string missing = why_not_open(root + "/dev/kvm", "/dev/kvm");
  const std::string hardware = hardware_virtualization(read_text(root + "/proc/cpuinfo"));
  if (hardware.empty())
    missing += missing.empty() ? "/dev/kvm opens, but the CPU flags show neither VT-x nor AMD-V"
                               : ", and the CPU flags show neither VT-x nor AMD-V";
  if (!missing.empty()) return {EngineKind::kKvm, false, missing};
  return {EngineKind::kKvm, true, "/dev/kvm opens and the CPU flags show " + hardware};
}

HostEngine probe_mshv(const std::string& root) {
  const std::string missing = why_not_open(root + "/dev/mshv", "/dev/mshv");
  return {EngineKind::kMshv, missing.empty(), missing.empty() ? "/dev/mshv opens" : missing};
}

HostEngine probe_xen(const std::string& root) {
  if (read_text(root + "/sys/hypervisor/type") != "xen\n")
    return {EngineKind::kXen, false, "this is not a Xen host: /sys/hypervisor/type does not say xen"};
  if (!read_text(root + "/proc/xen/capabilities").contains("control_d"))
    return {EngineKind::kXen, false,
            "this Xen domain does not control the host: /proc/xen/capabilities lacks control_d"};
  const std::string capabilities = read_text(root + "/sys/hypervisor/properties/capabilities");
  if (!capabilities.contains("hvm") && !capabilities.contains("hap"))
    return {EngineKind::kXen, false, "this Xen host's capabilities list neither hvm nor hap"};
  return {EngineKind::kXen, true, "this Xen host's capabilities list hvm"};
}

}  // namespace

HostEngines probe_host(const std::string& root) {
  return {{probe_kvm(root), probe_mshv(root), probe_xen(root),
           HostEngine{EngineKind::kDbt, true, "needs no hardware, no kernel module and no privilege"}}};
}

}  // namespace bulkhead::engine
