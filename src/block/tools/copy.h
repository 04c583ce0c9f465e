// Contents of images: where they are, copying them, comparing them. Executor's thread for the tasks.
#pragma once
#include <atomic>

#include "block/tools/session.h"

namespace bulkhead::block::tools {

// What the chain below (and with) `top` holds at a place.
struct ChainStatus {
  BlockStatus status;    // kUnallocated: nobody in the chain says anything; it reads as zeroes
  unsigned depth = 0;    // 0: the top image
  bool present = false;  // somebody says so
  bool zero = false, data = false;
};
// `base`: where to stop, not looked at; nullptr: the whole chain.
Task<IoResult<ChainStatus>> chain_status(Node* top, const Node* base, u64 offset, u64 length);

struct CopyOptions {
  unsigned parallel = 8;       // requests in flight
  u64 sparse_bytes = 4_KiB;    // runs of zeroes of at least this are not written; 0: all is written
  bool target_is_zero = true;  // what is not written reads as zeroes there
  bool only_top = false;       // what the source's top image does not hold is left out
  bool compress = false;       // to a qcow2 image
  const Node* base = nullptr;  // with only_above: what `base` and those below hold is left out
  bool only_above = false;
};
struct CopyProgress {
  std::atomic<u64> done{0}, total{0};  // bytes
};
// Copies [0, size of source) of `from` to `to`. Errors: the first, of either.
Task<Result<void>> copy(Node* from, Node* to, CopyOptions options, CopyProgress* progress);

struct Difference {
  bool same = true;
  u64 offset = 0;
  bool size_only = false;
};
// Where one is shorter, zeroes count as the same, unless `strict`.
Task<Result<Difference>> compare(Node* a, Node* b, bool strict, CopyProgress* progress);

struct BenchOptions {
  u64 count = 75000, depth = 64, size = 4096, step = 0, offset = 0, flush_interval = 0;
  bool write = false, random = false;
  u8 pattern = 0;
  u64 seed = 1;
};
// Seconds that it took.
Task<Result<double>> bench(Node* node, BenchOptions options);

}  // namespace bulkhead::block::tools
