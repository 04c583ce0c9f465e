// Brings what a disk's image has below it up into it, until it stands on `base`, or on nothing.
#pragma once
#include "block/job/copy_job.h"
#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block {

class StreamJob final : public CopyJob {
 public:
  StreamJob(Disk& disk, JobRequest request, unsigned chunk_bits) : CopyJob{disk, std::move(request), chunk_bits} {}
  Task<Result<void>> prepare() override;

 private:
  Task<Result<void>> work() override;
  Task<Result<void>> shorten();
  Task<Copied> copy_range(u64 offset, u64 length, std::span<std::byte> memory) override;
  Task<u64> reach(u64 offset, u64 length) override;
  Task<IoStatus> change(Change* change) override;
  std::string_view file() const override { return file_; }
  std::string file_;
  NodePtr root_;
  qcow2::Qcow2Node* image_ = nullptr;
  Node* base_ = nullptr;
};

}  // namespace bulkhead::block
