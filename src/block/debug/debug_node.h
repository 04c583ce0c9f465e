// A filter that makes its child fail, by rule: for tests of whatever is above.
#pragma once
#include <limits>

#include "block/node/node.h"

namespace bulkhead::block {

struct FaultRule {
  // Which requests: of this kind (kCount: of any) that touch [begin, end) (flushes touch everything), the `from`-th
  // such request (1: the first) and so many from there on.
  RequestKind kind = RequestKind::kCount;
  u64 begin = 0, end = std::numeric_limits<u64>::max();
  u64 from = 1, count = std::numeric_limits<u64>::max();
  // What becomes of them.
  IoStatus status = IoStatus::kOk;  // kOk: the child's own answer
  Nanoseconds delay = 0;            // before anything else
  // Of a write with an error: how many bytes reach the child nevertheless. Torn in the middle of a sector, if so asked.
  u64 torn_bytes = 0;
  bool before_child = true;  // false: the child does it, and we say that it failed
};

class DebugNode final : public Node {
 public:
  DebugNode(NodePtr child, std::vector<FaultRule> rules);
  std::string_view driver() const override { return "debug"; }
  bool supports_discard() const override { return below().supports_discard(); }
  NodeLimits limits() const override { return below().limits(); }
  // The executor's thread. Counts begin anew.
  void set_rules(std::vector<FaultRule> rules);
  u64 hits() const { return hits_.load(); }  // requests that a rule was for; any thread

  // "write,offset=64K,length=1M,from=3,count=1,status=enospc,delay=5ms,torn=512": the kind first (read, write, flush,
  // discard, zeroes, any), then any of these. Errors: what is not understood, by name.
  static Result<FaultRule> parse_rule(const std::string& text);

 protected:
  Task<IoStatus> do_read(u64 offset, Buffers data) override;
  Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags flags) override;
  Task<IoStatus> do_flush() override;
  Task<IoStatus> do_discard(u64 offset, u64 length) override;
  Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags flags) override;
  Task<IoResult<BlockStatus>> do_block_status(u64 offset, u64 length) override;
  Task<IoStatus> do_truncate(u64 size, Preallocation preallocation) override;
  bool supports_fua() const override { return true; }
  bool growable() const override { return growable_; }

 private:
  struct Armed {
    FaultRule rule;
    u64 seen = 0;
  };
  Node& below() const { return *child(ChildRole::kFiltered); }
  std::optional<FaultRule> match(RequestKind kind, u64 offset, u64 length);
  Task<IoStatus> apply(std::optional<FaultRule> rule, Task<IoStatus> request);

  std::vector<Armed> rules_;
  std::atomic<u64> hits_{0};
  const bool growable_;
};

}  // namespace bulkhead::block
