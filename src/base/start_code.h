// The program's code and constants as memory of ours: what only the start needed need not stay mapped.
#pragma once

namespace bulkhead {

// Unmaps the pages of the program's and its libraries' read-only parts, which are the files' own and come back when
// they are touched. Cheap enough for every start. Any thread.
void give_back_start_code();

}  // namespace bulkhead
