// The end of a child's way: who the process is and what it may do.
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "guest/pod/pod.h"

namespace bulkhead::pod {
namespace {

constexpr unsigned kCapabilities = 64;

bool drop_bounding_set(std::uint64_t kept, std::string& problem) {
  for (unsigned i = 0; i < kCapabilities; ++i) {
    if ((kept >> i & 1) != 0 || prctl(PR_CAPBSET_READ, i, 0, 0, 0) != 1) continue;
    if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0) continue;
    problem = errno_text("dropping capability %u", i);
    return false;
  }
  return true;
}

// Those that the kernel knows; it refuses others.
std::uint64_t known_capabilities() {
  std::uint64_t known = 0;
  for (unsigned i = 0; i < kCapabilities; ++i)
    if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0) known |= std::uint64_t{1} << i;
  return known;
}

bool set_capabilities(const Process& process, std::uint64_t known, std::string& problem) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  const std::uint64_t permitted = process.permitted() & known, effective = process.effective() & permitted;
  const std::uint64_t inheritable = process.inheritable() & known;
  for (unsigned i = 0; i < 2; ++i)
    data[i] = {static_cast<std::uint32_t>(effective >> 32 * i), static_cast<std::uint32_t>(permitted >> 32 * i),
               static_cast<std::uint32_t>(inheritable >> 32 * i)};
  if (syscall(SYS_capset, &header, data) != 0) {
    problem = errno_text("setting the capabilities");
    return false;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (unsigned i = 0; i < kCapabilities; ++i)
    if ((process.ambient() & permitted & inheritable) >> i & 1) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
  return true;
}

bool install_filter(const std::string& program, std::uint32_t flags, std::string& problem) {
  if (program.empty()) return true;
  sock_fprog filter{static_cast<unsigned short>(program.size() / sizeof(sock_filter)),
                    reinterpret_cast<sock_filter*>(const_cast<char*>(program.data()))};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) == 0) return true;
  problem = errno_text("installing the seccomp filter");
  return false;
}

bool set_user(const Process& process, std::string& problem) {
  const std::vector<gid_t> groups{process.groups().begin(), process.groups().end()};
  if (setgroups(groups.size(), groups.data()) == 0 && setresgid(process.gid(), process.gid(), process.gid()) == 0 &&
      setresuid(process.uid(), process.uid(), process.uid()) == 0)
    return true;
  problem = errno_text("becoming user %u and group %u", process.uid(), process.gid());
  return false;
}

}  // namespace

bool set_limits(const Process& process, std::string& problem) {
  for (const Rlimit& limit : process.rlimits()) {
    const rlimit value{limit.soft(), limit.hard()};
    if (setrlimit(static_cast<__rlimit_resource>(limit.resource()), &value) == 0) continue;
    problem = errno_text("setting the resource limit %u", limit.resource());
    return false;
  }
  if (!process.has_oom_score()) return true;
  if (write_file("/proc/self/oom_score_adj", std::to_string(process.oom_score()))) return true;
  problem = errno_text("setting the OOM score to %d", process.oom_score());
  return false;
}

bool become_user(const Process& process, const std::string& seccomp, std::uint32_t seccomp_flags,
                 std::string& problem) {
  const std::uint64_t known = known_capabilities();
  // A filter needs either CAP_SYS_ADMIN, which is about to go, or no_new_privs: so it comes as late as it may.
  if (process.no_new_privileges()) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  } else if (!install_filter(seccomp, seccomp_flags, problem)) {
    return false;
  }
  if (process.has_umask()) umask(process.umask());
  if (!drop_bounding_set(process.bounding(), problem)) return false;
  prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
  if (!set_user(process, problem)) return false;
  prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
  if (!set_capabilities(process, known, problem)) return false;
  return !process.no_new_privileges() || install_filter(seccomp, seccomp_flags, problem);
}

}  // namespace bulkhead::pod
