// On whose behalf a request is carried out. Both are the calling thread's only [setfsuid(2), capabilities(7)].
#pragma once
#include "base/ints.h"

namespace bulkhead::fs {

// What is created belongs to the caller. The guest's kernel has judged permissions already, with groups that we are not
// told, so we keep the right to pass them by; owners, set-group-ID folders and quotas are the caller's.
class CallerScope {
 public:
  // `enabled` false: we cannot be others, and everything is ours.
  CallerScope(bool enabled, u32 uid, u32 gid);
  ~CallerScope();
  CallerScope(const CallerScope&) = delete;
  bool good() const { return good_; }  // false: the host has no such user here

 private:
  bool switched_ = false, good_ = true;
};

// Writing takes set-user-ID and set-group-ID away, as it does for whoever has no CAP_FSETID.
class KillSetIdScope {
 public:
  explicit KillSetIdScope(bool enabled);
  ~KillSetIdScope();
  KillSetIdScope(const KillSetIdScope&) = delete;

 private:
  bool dropped_ = false;
};

}  // namespace bulkhead::fs
