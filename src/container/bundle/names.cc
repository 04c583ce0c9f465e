#include "container/bundle/names.h"

#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <utility>

namespace bulkhead::container {
namespace {

constexpr std::string_view kCapabilities[] = {"CHOWN",
                                              "DAC_OVERRIDE",
                                              "DAC_READ_SEARCH",
                                              "FOWNER",
                                              "FSETID",
                                              "KILL",
                                              "SETGID",
                                              "SETUID",
                                              "SETPCAP",
                                              "LINUX_IMMUTABLE",
                                              "NET_BIND_SERVICE",
                                              "NET_BROADCAST",
                                              "NET_ADMIN",
                                              "NET_RAW",
                                              "IPC_LOCK",
                                              "IPC_OWNER",
                                              "SYS_MODULE",
                                              "SYS_RAWIO",
                                              "SYS_CHROOT",
                                              "SYS_PTRACE",
                                              "SYS_PACCT",
                                              "SYS_ADMIN",
                                              "SYS_BOOT",
                                              "SYS_NICE",
                                              "SYS_RESOURCE",
                                              "SYS_TIME",
                                              "SYS_TTY_CONFIG",
                                              "MKNOD",
                                              "LEASE",
                                              "AUDIT_WRITE",
                                              "AUDIT_CONTROL",
                                              "SETFCAP",
                                              "MAC_OVERRIDE",
                                              "MAC_ADMIN",
                                              "SYSLOG",
                                              "WAKE_ALARM",
                                              "BLOCK_SUSPEND",
                                              "AUDIT_READ",
                                              "PERFMON",
                                              "BPF",
                                              "CHECKPOINT_RESTORE"};

constexpr std::pair<std::string_view, unsigned> kLimits[] = {{"RLIMIT_AS", RLIMIT_AS},
                                                             {"RLIMIT_CORE", RLIMIT_CORE},
                                                             {"RLIMIT_CPU", RLIMIT_CPU},
                                                             {"RLIMIT_DATA", RLIMIT_DATA},
                                                             {"RLIMIT_FSIZE", RLIMIT_FSIZE},
                                                             {"RLIMIT_LOCKS", 10},
                                                             {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
                                                             {"RLIMIT_MSGQUEUE", 12},
                                                             {"RLIMIT_NICE", 13},
                                                             {"RLIMIT_NOFILE", RLIMIT_NOFILE},
                                                             {"RLIMIT_NPROC", RLIMIT_NPROC},
                                                             {"RLIMIT_RSS", RLIMIT_RSS},
                                                             {"RLIMIT_RTPRIO", 14},
                                                             {"RLIMIT_RTTIME", 15},
                                                             {"RLIMIT_SIGPENDING", 11},
                                                             {"RLIMIT_STACK", RLIMIT_STACK}};

struct Option {
  std::string_view name;
  u64 flag;
  bool clears = false;
};
constexpr Option kOptions[] = {{"ro", MS_RDONLY},
                               {"rw", MS_RDONLY, true},
                               {"nosuid", MS_NOSUID},
                               {"suid", MS_NOSUID, true},
                               {"nodev", MS_NODEV},
                               {"dev", MS_NODEV, true},
                               {"noexec", MS_NOEXEC},
                               {"exec", MS_NOEXEC, true},
                               {"sync", MS_SYNCHRONOUS},
                               {"async", MS_SYNCHRONOUS, true},
                               {"dirsync", MS_DIRSYNC},
                               {"mand", MS_MANDLOCK},
                               {"nomand", MS_MANDLOCK, true},
                               {"noatime", MS_NOATIME},
                               {"atime", MS_NOATIME, true},
                               {"nodiratime", MS_NODIRATIME},
                               {"diratime", MS_NODIRATIME, true},
                               {"relatime", MS_RELATIME},
                               {"norelatime", MS_RELATIME, true},
                               {"strictatime", MS_STRICTATIME},
                               {"nostrictatime", MS_STRICTATIME, true},
                               {"nosymfollow", 256},
                               {"remount", 0},
                               {"defaults", 0},
                               {"tmpcopyup", 0}};
constexpr Option kPropagations[] = {{"private", MS_PRIVATE},       {"rprivate", MS_PRIVATE | MS_REC},
                                    {"slave", MS_SLAVE},           {"rslave", MS_SLAVE | MS_REC},
                                    {"shared", MS_SHARED},         {"rshared", MS_SHARED | MS_REC},
                                    {"unbindable", MS_UNBINDABLE}, {"runbindable", MS_UNBINDABLE | MS_REC}};

}  // namespace

std::optional<unsigned> capability_number(std::string_view name) {
  if (!name.starts_with("CAP_")) return std::nullopt;
  const auto* const found = std::ranges::find(kCapabilities, name.substr(4));
  if (found == std::end(kCapabilities)) return std::nullopt;
  return static_cast<unsigned>(found - std::begin(kCapabilities));
}

std::optional<unsigned> rlimit_number(std::string_view name) {
  const auto* const found = std::ranges::find(kLimits, name, [](const auto& limit) { return limit.first; });
  if (found == std::end(kLimits)) return std::nullopt;
  return found->second;
}

MountOptions mount_options(const std::vector<std::string>& words) {
  MountOptions out;
  for (const std::string& word : words) {
    if (word == "bind" || word == "rbind") {
      out.bind = true;
      if (word == "rbind") out.flags |= MS_REC;
      continue;
    }
    if (const auto* const one = std::ranges::find(kPropagations, word, &Option::name); one != std::end(kPropagations)) {
      out.propagation = one->flag;
      continue;
    }
    const auto* const one = std::ranges::find(kOptions, word, &Option::name);
    if (one == std::end(kOptions)) {
      if (!out.data.empty()) out.data += ",";
      out.data += word;
    } else if (one->clears) {
      out.flags &= ~one->flag;
    } else {
      out.flags |= one->flag;
    }
  }
  return out;
}

}  // namespace bulkhead::container
