// Copies a disk to a target that then takes its place: a new image (mirror), or an image of its own chain (commit of
// the disk's own image).
//
// What the guest changes where the copy is current already is changed there, too, before the guest hears of it; so what
// is left to copy only shrinks, and the target is whole once it is all copied, whatever the guest does. Until it takes
// the disk's place nothing depends on the target.
#pragma once
#include "block/job/copy_job.h"

namespace bulkhead::block {

class MirrorJob final : public CopyJob {
 public:
  MirrorJob(Disk& disk, JobRequest request, unsigned chunk_bits)
      : CopyJob{disk, std::move(request), chunk_bits}, written_{disk.size_bytes(), chunk_bits} {}
  Task<Result<void>> prepare() override;

 private:
  Task<Result<void>> prepare_mirror();
  Task<Result<void>> prepare_commit();
  Task<Result<void>> work() override;
  Task<bool> follow();
  Task<Result<void>> take_over();
  Task<Result<void>> leave();
  Task<Copied> copy_range(u64 offset, u64 length, std::span<std::byte> memory) override;
  Task<u64> reach(u64 offset, u64 length) override;
  Task<IoStatus> change(Change* change) override;
  Task<void> repeat(const Change* change);
  Task<IoStatus> repeat_part(const Change* change, u64 offset, u64 length);
  bool must_be_completed() const override { return true; }
  std::string_view file() const override { return file_; }
  bool commits() const { return request().kind == JobKind::kCommit; }

  NodePtr source_, target_;
  std::string file_;
  const Node* base_ = nullptr;   // what it and those below hold is not copied
  bool target_is_zero_ = false;  // where it was never written
  bool committing_ = false;      // the target was opened for writing, within the chain
  ChunkMap written_;             // where the target was
};

}  // namespace bulkhead::block
