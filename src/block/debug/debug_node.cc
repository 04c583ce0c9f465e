#include "block/debug/debug_node.h"

#include <algorithm>

namespace bulkhead::block {

DebugNode::DebugNode(NodePtr child, std::vector<FaultRule> rules)
    : Node{child->executor(), child->name(), child->read_only() ? DiskAccess::kReadOnly : DiskAccess::kReadWrite},
      growable_{child->grows()} {
  set_size(child->size());
  add_child(ChildRole::kFiltered, std::move(child));
  set_rules(std::move(rules));
}

void DebugNode::set_rules(std::vector<FaultRule> rules) {
  rules_.clear();
  for (const FaultRule& rule : rules) rules_.push_back({rule});
}

std::optional<FaultRule> DebugNode::match(RequestKind kind, u64 offset, u64 length) {
  for (Armed& armed : rules_) {
    const FaultRule& rule = armed.rule;
    if (rule.kind != RequestKind::kCount && rule.kind != kind) continue;
    const bool touches = offset < rule.end && rule.begin < offset + length;
    if (kind != RequestKind::kFlush && !touches) continue;
    ++armed.seen;
    if (armed.seen < rule.from || armed.seen - rule.from >= rule.count) continue;
    hits_.fetch_add(1);
    return rule;
  }
  return std::nullopt;
}

Task<IoStatus> DebugNode::apply(std::optional<FaultRule> rule, Task<IoStatus> request) {
  if (rule && rule->delay != 0) co_await executor().sleep_for(rule->delay);
  if (rule && rule->status != IoStatus::kOk && rule->before_child) co_return rule->status;
  const IoStatus status = co_await std::move(request);
  if (below().size() != size()) set_size(below().size());
  co_return rule && rule->status != IoStatus::kOk ? rule->status : status;
}

Task<IoStatus> DebugNode::do_read(u64 offset, Buffers data) {
  return apply(match(RequestKind::kRead, offset, total_bytes(data)), below().read(offset, data));
}

Task<IoStatus> DebugNode::do_write(u64 offset, Buffers data, WriteFlags flags) {
  const u64 length = total_bytes(data);
  const std::optional<FaultRule> rule = match(RequestKind::kWrite, offset, length);
  if (rule && rule->status != IoStatus::kOk && rule->torn_bytes != 0) {
    const BufferSlice part{data, 0, std::min(rule->torn_bytes, length)};
    const IoStatus status = co_await below().write(offset, part, flags);
    if (status != IoStatus::kOk) co_return status;
  }
  Task<IoStatus> request = below().write(offset, data, flags);
  co_return co_await apply(rule, std::move(request));
}

Task<IoStatus> DebugNode::do_flush() { return apply(match(RequestKind::kFlush, 0, 0), below().flush()); }

Task<IoStatus> DebugNode::do_discard(u64 offset, u64 length) {
  return apply(match(RequestKind::kDiscard, offset, length), below().discard(offset, length));
}

Task<IoStatus> DebugNode::do_write_zeroes(u64 offset, u64 length, WriteFlags flags) {
  return apply(match(RequestKind::kWriteZeroes, offset, length), below().write_zeroes(offset, length, flags));
}

Task<IoResult<BlockStatus>> DebugNode::do_block_status(u64 offset, u64 length) {
  return below().block_status(offset, length);
}

Task<IoStatus> DebugNode::do_truncate(u64 bytes, Preallocation preallocation) {
  const IoStatus status = co_await below().truncate(bytes, preallocation);
  set_size(below().size());
  co_return status;
}

}  // namespace bulkhead::block
