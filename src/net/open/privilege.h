// Giving up what opening a network device took.
#pragma once
#include "base/result.h"

namespace bulkhead::net {

// Takes every capability from the calling thread but those that have to do with files, and so from all threads that it
// makes later: do it before there are others. Programs that it starts may have them back until forbid_privilege().
Result<void> drop_privilege();
// From here on no program that this thread or later ones of its start gets any.
void forbid_privilege();

}  // namespace bulkhead::net
