#include "net/open/privilege.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ints.h"

namespace bulkhead::net {
namespace {

// The zone's files may be another user's than root's, and its tools are stopped by signals.
constexpr u64 kKept = u64{1} << CAP_DAC_OVERRIDE | u64{1} << CAP_DAC_READ_SEARCH | u64{1} << CAP_FOWNER |
                      u64{1} << CAP_CHOWN | u64{1} << CAP_KILL;

}  // namespace

Result<void> drop_privilege() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  if (::syscall(SYS_capget, &header, sets) != 0) return fail_errno("reading our capabilities");
  for (unsigned word = 0; word < 2; ++word) {
    const auto kept = static_cast<u32>(kKept >> 32 * word);
    sets[word].effective &= kept;
    sets[word].permitted &= kept;
    sets[word].inheritable = 0;
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (::syscall(SYS_capset, &header, sets) != 0) return fail_errno("giving up our capabilities");
  return {};
}

void forbid_privilege() { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

}  // namespace bulkhead::net
