// Brings what images of a disk's chain hold, from `top` down, into `base` below them, and takes them out of the chain;
// the disk's own image is not among them (that is a MirrorJob). The guest's changes are no concern of it.
#pragma once
#include "block/job/copy_job.h"
#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block {

class CommitJob final : public CopyJob {
 public:
  CommitJob(Disk& disk, JobRequest request, unsigned chunk_bits) : CopyJob{disk, std::move(request), chunk_bits} {}
  Task<Result<void>> prepare() override;

 private:
  Task<Result<void>> work() override;
  Task<Result<void>> open_base();
  Task<Result<void>> shorten();
  Task<Copied> copy_range(u64 offset, u64 length, std::span<std::byte> memory) override;
  Task<u64> reach(u64 offset, u64 length) override;
  Task<IoStatus> change(Change*) override { co_return IoStatus::kUnsupported; }  // we put no filter
  std::string_view file() const override { return base_ == nullptr ? std::string_view{} : base_->name(); }
  NodePtr root_;
  Node *top_ = nullptr, *base_ = nullptr;
};

}  // namespace bulkhead::block
