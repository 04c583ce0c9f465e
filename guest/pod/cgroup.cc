// Control groups, version 2 [linux "Control Group v2"].
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "guest/pod/pod.h"

namespace bulkhead::pod {
namespace {

void wait_a_little() {
  const timespec pause{0, 2'000'000};
  nanosleep(&pause, nullptr);
}

// "key value" lines as "file key".
void add_lines(const std::string& path, const char* file, StatsResponse& out) {
  std::string text;
  if (!read_file(path + "/" + file, text)) return;
  for (std::size_t start = 0; start < text.size();) {
    std::size_t end = text.find('\n', start);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(start, end - start);
    if (const std::size_t space = line.find(' '); space != std::string::npos)
      (*out.mutable_values())[std::string{file} + " " + line.substr(0, space)] =
          strtoull(line.c_str() + space + 1, nullptr, 10);
    start = end + 1;
  }
}

void add_number(const std::string& path, const char* file, StatsResponse& out) {
  std::string text;
  if (!read_file(path + "/" + file, text)) return;
  (*out.mutable_values())[file] = text.starts_with("max") ? UINT64_MAX : strtoull(text.c_str(), nullptr, 10);
}

// "8:0 rbytes=1 wbytes=2 rios=3 wios=4": all devices together.
void add_io(const std::string& path, StatsResponse& out) {
  std::string text;
  if (!read_file(path + "/io.stat", text)) return;
  for (const char* const key : {"rbytes", "wbytes", "rios", "wios"}) {
    std::uint64_t sum = 0;
    const std::string wanted = std::string{" "} + key + "=";
    for (std::size_t at = text.find(wanted); at != std::string::npos; at = text.find(wanted, at + 1))
      sum += strtoull(text.c_str() + at + wanted.size(), nullptr, 10);
    (*out.mutable_values())[std::string{"io.stat "} + key] = sum;
  }
}

}  // namespace

bool make_cgroup(const std::string& path, std::string& problem) {
  // The controllers reach a group only when its parent passes them on.
  for (const char* const controller : {"+cpu", "+memory", "+pids", "+io", "+cpuset"})
    write_file(std::string{kCgroups} + "/cgroup.subtree_control", controller);
  if (mkdir(path.c_str(), 0755) == 0) return true;
  problem = errno_text("making the control group %s", path.c_str());
  return false;
}

bool apply_settings(const std::string& path, const google::protobuf::RepeatedPtrField<Setting>& settings,
                    std::string& problem) {
  for (const Setting& setting : settings) {
    if (setting.file().find('/') != std::string::npos || setting.file().starts_with("cgroup.")) {
      problem = text_of("%s is no setting of a control group", setting.file().c_str());
      return false;
    }
    if (write_file(path + "/" + setting.file(), setting.value()) || !setting.required()) continue;
    problem = errno_text("setting %s to %s", setting.file().c_str(), setting.value().c_str());
    return false;
  }
  return true;
}

void remove_cgroup(const std::string& path) {
  write_file(path + "/cgroup.kill", "1");
  for (int i = 0; i < 500; ++i) {
    // A container that may have made groups of its own below.
    if (DIR* const folder = opendir(path.c_str())) {
      while (const dirent* const entry = readdir(folder))
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') rmdir((path + "/" + entry->d_name).c_str());
      closedir(folder);
    }
    if (rmdir(path.c_str()) == 0 || errno == ENOENT) return;
    wait_a_little();  // for the last of the killed
  }
}

std::uint64_t cgroup_number(const std::string& path, const char* file, const char* key) {
  StatsResponse all;
  add_lines(path, file, all);
  const auto found = all.values().find(std::string{file} + " " + key);
  return found == all.values().end() ? 0 : found->second;
}

void cgroup_statistics(const std::string& path, StatsResponse& out) {
  for (const char* const file : {"cpu.stat", "memory.stat", "memory.events"}) add_lines(path, file, out);
  for (const char* const file :
       {"memory.current", "memory.max", "memory.swap.current", "memory.swap.max", "pids.current", "pids.max"})
    add_number(path, file, out);
  add_io(path, out);
}

}  // namespace bulkhead::pod
