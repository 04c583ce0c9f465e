// Wakes a thread that polls, from any other thread.
#pragma once
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/ints.h"

namespace bulkhead::zone {

class Wake {
 public:
  Wake() : fd_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)} {}
  int fd() const { return fd_.get(); }
  void notify() {
    const u64 one = 1;
    (void)!::write(fd_.get(), &one, sizeof one);
  }
  void clear() {
    u64 count;
    (void)!::read(fd_.get(), &count, sizeof count);
  }

 private:
  UniqueFd fd_;
};

}  // namespace bulkhead::zone
