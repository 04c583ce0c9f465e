// What stands on a disk's graph while a job runs, so that the job sees every change a guest makes. Reads pass through.
#pragma once
#include "block/node/node.h"

namespace bulkhead::block {

// One request that changes the disk: write, discard or write zeroes.
struct Change {
  RequestKind kind;
  u64 offset = 0, length = 0;
  Buffers data{};
  WriteFlags flags = WriteFlags::kNone;
};

class ChangeHook {
 public:
  // Lets the change happen below (JobFilter::forward), with what the job does before and after it. The answer is the
  // guest's.
  virtual Task<IoStatus> change(Change* change) = 0;

 protected:
  ~ChangeHook() = default;
};

class JobFilter final : public Node {
 public:
  // `hook` outlives every request through us.
  JobFilter(NodePtr below, ChangeHook& hook);
  std::string_view driver() const override { return "job"; }
  bool supports_discard() const override { return below_.supports_discard(); }
  NodeLimits limits() const override;
  Task<IoStatus> forward(const Change* change);

 protected:
  Task<IoStatus> do_read(u64 offset, Buffers data) override { return below_.read(offset, data); }
  Task<IoStatus> do_flush() override { return below_.flush(); }
  Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags flags) override;
  Task<IoStatus> do_discard(u64 offset, u64 length) override;
  Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags flags) override;
  Task<IoResult<BlockStatus>> do_block_status(u64 offset, u64 length) override {
    return below_.block_status(offset, length);
  }
  bool supports_fua() const override { return true; }

 private:
  Node& below_;
  ChangeHook& hook_;
};

}  // namespace bulkhead::block
