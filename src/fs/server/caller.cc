#include "fs/server/caller.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead::fs {
namespace {

// The C library's wrappers of setresuid() and the like change every thread; these system calls do not.
u32 set_fsuid(u32 id) { return static_cast<u32>(::syscall(SYS_setfsuid, id)); }
u32 set_fsgid(u32 id) { return static_cast<u32>(::syscall(SYS_setfsgid, id)); }
constexpr u32 kNobody = ~0u;  // not valid: the call changes nothing and says who we are

bool change_effective(unsigned capability, bool on) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  u32& word = data[CAP_TO_INDEX(capability)].effective;
  const u32 bit = CAP_TO_MASK(capability);
  if (((word & bit) != 0) == on) return false;
  word ^= bit;
  return ::syscall(SYS_capset, &header, data) == 0;
}

}  // namespace

CallerScope::CallerScope(bool enabled, u32 uid, u32 gid) {
  if (!enabled || (uid == 0 && gid == 0)) return;
  switched_ = true;
  set_fsgid(gid);
  set_fsuid(uid);  // the kernel takes the file capabilities out of the effective set with it
  good_ = uid != kNobody && gid != kNobody && set_fsuid(kNobody) == uid && set_fsgid(kNobody) == gid;
  if (uid != 0) change_effective(CAP_DAC_OVERRIDE, true);
}

CallerScope::~CallerScope() {
  if (!switched_) return;
  set_fsuid(0);  // and brings them back
  set_fsgid(0);
}

KillSetIdScope::KillSetIdScope(bool enabled) : dropped_{enabled && change_effective(CAP_FSETID, false)} {}

KillSetIdScope::~KillSetIdScope() {
  if (dropped_) change_effective(CAP_FSETID, true);
}

}  // namespace bulkhead::fs
