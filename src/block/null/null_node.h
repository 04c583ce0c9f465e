// A disk that holds nothing: reads give zeroes, writes go nowhere. For tests and for measuring what is above it.
#pragma once
#include "block/node/node.h"

namespace bulkhead::block {

struct NullOptions {
  u64 size = 1_GiB;
  Nanoseconds latency = 0;  // of each request
  bool read_zeroes = true;  // false: leaves the memory of reads as it is, which costs nothing
  DiskAccess access = DiskAccess::kReadWrite;
  NodeLimits limits{};
};

class NullNode final : public Node {
 public:
  NullNode(Executor& executor, NullOptions options) : Node{executor, "null", options.access}, options_{options} {
    set_size(options.size);
  }
  std::string_view driver() const override { return "null"; }
  bool supports_discard() const override { return !read_only(); }
  NodeLimits limits() const override { return options_.limits; }

 protected:
  Task<IoStatus> do_read(u64 offset, Buffers data) override;
  Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags flags) override;
  Task<IoStatus> do_flush() override;
  Task<IoStatus> do_discard(u64 offset, u64 length) override;
  Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags flags) override;
  Task<IoResult<BlockStatus>> do_block_status(u64 offset, u64 length) override;
  Task<IoStatus> do_truncate(u64 size, Preallocation preallocation) override;
  bool supports_fua() const override { return true; }

 private:
  Task<IoStatus> done();
  const NullOptions options_;
};

}  // namespace bulkhead::block
