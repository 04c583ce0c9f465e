// Control groups of this host, of either version: the pod's monitor is accounted where the kubelet looks for the pod.
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>
#include <vector>

#include "container/shim/pod.h"

namespace bulkhead::container {
namespace {

constexpr u64 kMonitorOverhead = 64_MiB;  // of the pod's limit, where the zone and its monitor share it
constexpr u64 kNoLimit = u64{1} << 60;    // version 1 says so by a large number

std::vector<std::string> hierarchies() {
  std::vector<std::string> out;
  std::ifstream mounts{"/proc/self/mounts"};
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words{line};
    std::string device, place, type;
    if (words >> device >> place >> type && (type == "cgroup" || type == "cgroup2")) out.push_back(place);
  }
  return out;
}

// Systemd's way of writing a path, "SLICE:PREFIX:NAME", is the folder SLICE of its parents and PREFIX-NAME.scope.
std::string folder_of(const std::string& path) {
  const std::size_t first = path.find(':');
  const std::size_t second = first == std::string::npos ? first : path.find(':', first + 1);
  if (second == std::string::npos) return path;
  const std::string slice = path.substr(0, first);
  std::string out;
  for (std::size_t dash = slice.find('-'); dash != std::string::npos; dash = slice.find('-', dash + 1))
    out += "/" + slice.substr(0, dash) + ".slice";
  return out + "/" + slice + "/" + path.substr(first + 1, second - first - 1) + "-" + path.substr(second + 1) +
         ".scope";
}

bool sane(const std::string& path) { return path.starts_with('/') && path.find("/..") == std::string::npos; }

std::string read_first_line(const std::string& path) {
  std::ifstream in{path};
  std::string line;
  std::getline(in, line);
  return line;
}

std::optional<i64> number_of(std::string_view text) {
  i64 number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  return number;
}

// A new group of the controller cpuset has to be told what it may use (version 1).
void inherit(const std::string& parent, const std::string& group, const char* file) {
  const std::string value = read_first_line(parent + "/" + file);
  if (!value.empty() && read_first_line(group + "/" + file).empty()) std::ofstream{group + "/" + file} << value;
}

}  // namespace

void enter_host_cgroup(const std::string& path) {
  const std::string folder = folder_of(path);
  if (!sane(folder)) return;
  for (const std::string& root : hierarchies()) {
    const std::string parent = root + folder.substr(0, folder.rfind('/'));
    if (::access(parent.c_str(), F_OK) != 0) continue;  // not one that the kubelet uses
    ::mkdir((root + folder).c_str(), 0755);
    for (const char* const file : {"cpuset.cpus", "cpuset.mems"}) inherit(parent, root + folder, file);
    std::ofstream{root + folder + "/cgroup.procs"} << ::getpid();
  }
}

void remove_host_cgroup(const std::string& path) {
  const std::string folder = folder_of(path);
  if (!sane(folder)) return;
  for (const std::string& root : hierarchies()) {
    // The monitor's helpers may take a moment to follow it.
    for (int i = 0; i < 200 && ::rmdir((root + folder).c_str()) != 0 && errno == EBUSY; ++i) ::usleep(5000);
  }
}

PodLimits host_limits(const std::string& path) {
  PodLimits out;
  const std::string folder = folder_of(path);
  // The group of a pod, not that of all pods: a limit there is nobody's in particular.
  if (!sane(folder) || folder.find("pod") == std::string::npos) return out;
  const std::string parent = folder.substr(0, folder.rfind('/'));
  if (parent.substr(parent.rfind('/') + 1).find("pod") == std::string::npos || parent.ends_with("kubepods")) return out;
  for (const std::string& root : hierarchies()) {
    for (const char* const file : {"/memory.max", "/memory.limit_in_bytes"})
      if (const auto limit = number_of(read_first_line(root + parent + file));
          limit && static_cast<u64>(*limit) < kNoLimit && static_cast<u64>(*limit) > kMonitorOverhead + kZoneOverhead)
        out.memory = static_cast<u64>(*limit) - kMonitorOverhead - kZoneOverhead;
    std::istringstream both{read_first_line(root + parent + "/cpu.max")};
    std::string quota = read_first_line(root + parent + "/cpu.cfs_quota_us");
    std::string period = read_first_line(root + parent + "/cpu.cfs_period_us");
    if (quota.empty()) both >> quota >> period;
    const auto of = number_of(quota), in = number_of(period);
    if (of && in && *of > 0 && *in > 0) out.cpus = static_cast<double>(*of) / static_cast<double>(*in);
  }
  return out;
}

}  // namespace bulkhead::container
