#include "engine/probe.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>

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
    const std::size_t colon = line.find(':');
    if (!line.starts_with("flags") || colon == std::string::npos) continue;
    std::istringstream flags{line.substr(colon + 1)};
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
  const int error = errno;
  if (error == ENOENT) return std::string{"there is no "} + shown;
  std::string text = fmt::format("{} does not open: {}", shown, std::strerror(error));
  if (error == EACCES || error == EPERM) text += fmt::format(" ({} may open it)", who_may_open(path));
  return text;
}

// There are hosts whose /dev/kvm opens and then emulates every instruction of an ordinary kernel.
HostEngine probe_kvm(const std::string& root) {
  const std::string missing = why_not_open(root + "/dev/kvm", "/dev/kvm");
  const std::string hardware = hardware_virtualization(read_text(root + "/proc/cpuinfo"));
  if (!missing.empty())
    return {EngineKind::kKvm, false, missing + (hardware.empty() ? ", and the CPU flags show no VT-x/AMD-V" : "")};
  if (hardware.empty())
    return {EngineKind::kKvm, false,
            "/dev/kvm opens but has no VT-x/AMD-V under it, so it counts as not usable for auto and pvh"};
  return {EngineKind::kKvm, true, "/dev/kvm opens and the CPU flags show " + hardware};
}

HostEngine probe_mshv(const std::string& root) {
  const std::string missing = why_not_open(root + "/dev/mshv", "/dev/mshv");
  return {EngineKind::kMshv, missing.empty(), missing.empty() ? "/dev/mshv opens" : missing};
}

HostEngine probe_xen(const std::string& root) {
  const auto lacks = [](std::string why) { return HostEngine{EngineKind::kXen, false, std::move(why)}; };
  if (read_text(root + "/sys/hypervisor/type") != "xen\n")
    return lacks("this is not a Xen host: /sys/hypervisor/type does not say xen");
  if (!read_text(root + "/proc/xen/capabilities").contains("control_d"))
    return lacks("this Xen domain does not control the host: /proc/xen/capabilities lacks control_d");
  if (std::string missing = why_not_open(root + "/dev/xen/privcmd", "/dev/xen/privcmd"); !missing.empty())
    return lacks("this is a Xen host, but " + missing);
  const std::string capabilities = read_text(root + "/sys/hypervisor/properties/capabilities");
  const bool pv = capabilities.contains("xen-3.0-x86_64");
  for (const char* const proof : {"hvm", "hap"})
    if (capabilities.contains(proof))
      return {EngineKind::kXen, true, fmt::format("this Xen host's capabilities list {}", proof), pv};
  return {EngineKind::kXen, false, "this Xen host's capabilities list neither hvm nor hap", pv};
}

}  // namespace

std::string who_may_open(const std::string& path) {
  struct stat info{};
  constexpr mode_t kGroup = S_IRGRP | S_IWGRP;
  if (::stat(path.c_str(), &info) != 0 || (info.st_mode & kGroup) != kGroup || info.st_gid == 0) return "root";
  const struct group* const group = ::getgrgid(info.st_gid);
  return fmt::format("root and members of the group {}",
                     group != nullptr ? group->gr_name : std::to_string(info.st_gid));
}

HostEngines probe_host(const std::string& root) {
  return {{probe_kvm(root), probe_mshv(root), probe_xen(root),
           HostEngine{EngineKind::kDbt, true, "needs no hardware, no kernel module and no privilege", true}}};
}

}  // namespace bulkhead::engine
