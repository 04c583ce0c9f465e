#include "block/null/null_node.h"

namespace bulkhead::block {

Task<IoStatus> NullNode::done() {
  if (options_.latency != 0) co_await executor().sleep_for(options_.latency);
  co_return IoStatus::kOk;
}

Task<IoStatus> NullNode::do_read(u64, Buffers data) {
  if (options_.read_zeroes) fill_zero(data, 0, total_bytes(data));
  return done();
}
Task<IoStatus> NullNode::do_write(u64, Buffers, WriteFlags) { return done(); }
Task<IoStatus> NullNode::do_flush() { return done(); }
Task<IoStatus> NullNode::do_discard(u64, u64) { return done(); }
Task<IoStatus> NullNode::do_write_zeroes(u64, u64, WriteFlags) { return done(); }
Task<IoResult<BlockStatus>> NullNode::do_block_status(u64, u64 length) {
  co_return BlockStatus{.kind = BlockStatus::Kind::kZero, .length = length, .allocated = false};
}
Task<IoStatus> NullNode::do_truncate(u64 size, Preallocation) {
  set_size(size);
  co_return IoStatus::kOk;
}

}  // namespace bulkhead::block
