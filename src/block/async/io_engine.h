// How an executor asks the host for I/O. Two makers: io_uring, and a few threads. Used by Executor only.
#pragma once
#include <sys/uio.h>

#include <functional>
#include <memory>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "block/buffers.h"

namespace bulkhead::block {

enum class IoEngineKind : u8 { kAuto, kUring, kThreads };  // kAuto: io_uring, and threads where the host forbids it

class IoCompletion {
 public:
  virtual void io_done() = 0;  // on the executor's thread, never from within submit()

 protected:
  ~IoCompletion() = default;
};

// One host call. Lives until it has completed.
struct IoOp {
  enum class Kind : u8 {
    kRead,      // preadv2(fd, buffers, offset, flags)
    kWrite,     // pwritev2(fd, buffers, offset, flags)
    kSync,      // fdatasync(fd)
    kAllocate,  // fallocate(fd, mode, offset, length)
    kCall,      // (*function)() on a helper thread
  };
  Kind kind = Kind::kRead;
  int fd = -1;
  int flags = 0;  // RWF_*, or fallocate's mode
  u64 offset = 0;
  u64 length = 0;
  Buffers buffers;  // at most kMaxPieces
  std::function<void()>* function = nullptr;
  i64 result = 0;  // as the system call's, or -errno
  IoCompletion* completion = nullptr;
  IoOp* next = nullptr;

  static constexpr std::size_t kMaxPieces = 1024;  // IOV_MAX
};
static_assert(sizeof(IoBuffer) == sizeof(iovec));
inline const iovec* iovecs_of(Buffers buffers) { return reinterpret_cast<const iovec*>(buffers.data()); }

// All on the executor's thread, but the constructor's.
class IoEngine {
 public:
  virtual ~IoEngine() = default;
  virtual std::string_view name() const = 0;
  // Runs first on the executor's thread. `wake_fd`: an eventfd that ends wait().
  virtual Result<void> start(int wake_fd) = 0;
  virtual void submit(IoOp& op) = 0;
  // Hands over what was submitted and calls io_done() for what has completed. Does not wait.
  virtual void poll() = 0;
  // The same; waits until something has completed, `wake_fd` was written to, or `timeout` is over (~0: for ever).
  virtual void wait(Nanoseconds timeout) = 0;
};

std::unique_ptr<IoEngine> make_uring_engine(unsigned helpers);
std::unique_ptr<IoEngine> make_thread_engine(unsigned helpers);

}  // namespace bulkhead::block
