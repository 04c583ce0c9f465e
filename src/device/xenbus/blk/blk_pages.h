// The guest's pages that a disk's requests use. With persistent grants, pages stay mapped from one request to the
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
 private:
  struct Kept {
    u32 reference;
    unsigned users;  // requests that hold it now
    GrantedPage page;
  };
  using KeptList = std::list<Kept>;

 public:
  // `persistent`: pages to keep mapped; 0: none.
  BlkPages(GrantPort& grants, std::size_t persistent, BlkCounters& counters)
      : grants_{grants}, limit_{persistent}, counters_{counters} {}

  // What one request holds.
  class Held {
   public:
    explicit Held(BlkPages& pages) : pages_{pages} {}
    ~Held() { release(); }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

    // The page, until release(); nullptr: not granted.
    std::byte* hold(u32 reference, PageAccess access);
    // After the request, before its response.
    void release();

   private:
    BlkPages& pages_;
    std::vector<std::pair<KeptList::iterator, PageAccess>> kept_;
    std::vector<GrantedPage> others_;
  };

 private:
  bool keep(u32 reference);  // true: it is in front of kept_

  GrantPort& grants_;
  const std::size_t limit_;
  BlkCounters& counters_;
  KeptList kept_;  // used last in front
  std::unordered_map<u32, KeptList::iterator> by_reference_;
};

}  // namespace bulkhead::device::xenbus
