// Copies a disk as it is at one moment, while it goes on. What the guest is about to change where the copy has not been
// yet is copied first; so a guest's change may wait for the target, but no longer than until the job fails or ends.
//
// With sync=none nothing else is copied: the target, standing on the disk's image, is the disk as it was.
//
// With a bitmap only what it says has changed is copied. The bitmap starts over at the moment of the copy; if the job
// does not succeed, it takes back what it had.
#pragma once
#include "block/job/copy_job.h"
#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block {

class BackupJob final : public CopyJob {
 public:
  BackupJob(Disk& disk, JobRequest request, unsigned chunk_bits) : CopyJob{disk, std::move(request), chunk_bits} {}
  Task<Result<void>> prepare() override;

 private:
  Task<Result<void>> work() override;
  Task<Result<void>> begin();
  Task<Copied> copy_range(u64 offset, u64 length, std::span<std::byte> memory) override;
  Task<u64> reach(u64 offset, u64 length) override;
  Task<IoStatus> change(Change* change) override;
  Task<void> save_first(const Change* change);
  Task<bool> wait_told();  // to end, with what was copied
  bool must_be_completed() const override { return request().sync == JobSync::kNone; }
  u64 total_bytes() const override { return total_; }
  u64 done_bytes() const override {
    return total_ - std::min(total_, const_cast<BackupJob*>(this)->todo().remaining());
  }
  std::string_view file() const override { return request().target; }

  NodePtr source_, target_;
  const Node* base_ = nullptr;    // what is not copied, with all below it
  const Node* shared_ = nullptr;  // what the target stands on while we work
  bool target_is_zero_ = false;
  u64 total_ = 0;
  qcow2::Qcow2Node* recorder_ = nullptr;  // whose bitmap
  std::vector<bool> taken_;
};

}  // namespace bulkhead::block
