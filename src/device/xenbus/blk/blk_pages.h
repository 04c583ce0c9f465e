// The guest's pages that one request of a disk uses. With persistent grants, pages stay mapped from one request to the
// next, the least recently used being given back first.
// One thread at a time.
#pragma once
#include <list>
#include <unordered_map>
#include <vector>

#include "device/xenbus/blk/blk_counters.h"
#include "device/xenbus/ring/granted_page.h"

namespace bulkhead::device::xenbus {

class BlkPages {
 public:
  // `persistent`: pages to keep mapped; 0: none.
  BlkPages(GrantPort& grants, std::size_t persistent, BlkCounters& counters)
      : grants_{grants}, limit_{persistent}, counters_{counters} {}

  // The page, until release(); nullptr: not granted.
  std::byte* hold(u32 reference, PageAccess access);
  // After the request, before its response.
  void release();

 private:
  struct Kept {
    u32 reference;
    u64 last_request;
    GrantedPage page;
  };
  using KeptList = std::list<Kept>;
  std::byte* keep(u32 reference);

  GrantPort& grants_;
  const std::size_t limit_;
  BlkCounters& counters_;
  u64 request_ = 0;
  KeptList kept_;  // used last in front
  std::unordered_map<u32, KeptList::iterator> by_reference_;
  std::vector<u32> written_;              // of those kept, by this request
  std::vector<GrantedPage> for_request_;  // the others
};

}  // namespace bulkhead::device::xenbus
