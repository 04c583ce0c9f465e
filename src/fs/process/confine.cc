#include "fs/process/confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "fs/jail/jail.h"

namespace bulkhead::fs {
namespace {

constexpr rlim_t kDescriptors = 640 * 1024;  // every file that the guest knows needs one

// What serving files as root takes. Not CAP_MKNOD, not CAP_DAC_READ_SEARCH, not CAP_SYS_ADMIN.
constexpr unsigned kKept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETUID, CAP_SETGID, CAP_SETFCAP};
constexpr char kDescriptorFolder[] = "/fd";

void raise_descriptors() {
  rlimit limit{kDescriptors, kDescriptors};
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return;
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string place_of(std::size_t share) { return fmt::format("/{}", share); }

}  // namespace

Result<Confined> confine(const std::vector<ShareSpec>& wanted) {
  raise_descriptors();
  ::umask(0);
  Confined out;
  out.switch_users = have_capabilities(kKept);
  out.namespaces = own_namespaces();
  if (out.namespaces) {
    std::vector<JailedPath> paths;
    for (const ShareSpec& share : wanted) paths.push_back({share.path, place_of(paths.size()), share.read_only});
    BH_TRY(new_root(paths, kDescriptorFolder));
  }
  out.descriptors = out.namespaces ? kDescriptorFolder : "/proc/self/fd";
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::string path = out.namespaces ? place_of(i) : wanted[i].path;
    Share share{wanted[i].name, UniqueFd{::open(path.c_str(), O_PATH | O_CLOEXEC)}, wanted[i].read_only};
    if (!share.root) return fail_errno("opening {}", wanted[i].path);
    out.shares.push_back(std::move(share));
  }
  return out;
}

Result<void> seal_server(bool switch_users) { return switch_users ? seal(kKept) : seal({}); }

}  // namespace bulkhead::fs
