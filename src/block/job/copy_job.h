// The copying that all jobs do: a map of what is still to be done, workers that take pieces of it, and a lock on ranges
// by which they and the guest's changes keep out of each other's way.
//
// A worker holds the range of its piece alone while it copies, and clears the piece's chunks before it lets go. So who
// holds a range, and sees a chunk there clear, knows that it is copied, and that it stays so.
#pragma once
#include "block/job/chunk_map.h"
#include "block/job/filter.h"
#include "block/job/job.h"

namespace bulkhead::block {

class CopyJob : public Job, protected ChangeHook {
 protected:
  static constexpr u64 kPiece = 1_MiB;
  static constexpr unsigned kWorkers = 8;

  // How a piece ended. `node`: whose error it is.
  struct Copied {
    IoStatus status = IoStatus::kOk;
    const Node* node = nullptr;
    bool at_target = false;
    u64 bytes = 0;  // that were moved, for the speed limit
  };

  CopyJob(Disk& disk, JobRequest request, unsigned chunk_bits);
  u64 done_bytes() const override { return size_ - std::min(size_, todo_.remaining()); }
  u64 total_bytes() const override { return size_; }
  void woken() override { wake(); }

  // Under the range's lock. Whole chunks, but at the disk's end. `memory`: kPiece or more.
  virtual Task<Copied> copy_range(u64 offset, u64 length, std::span<std::byte> memory) = 0;
  // How far from `offset` on one piece may go, where there is little to move. Default: kPiece.
  virtual Task<u64> reach(u64 offset, u64 length);
  // Until nothing is to be done. False: the job has ended.
  Task<bool> copy_all();
  // The parts of [offset, offset + length) that are still to be done; what was copied is clear then.
  Task<Copied> copy_marked(u64 offset, u64 length, std::span<std::byte> memory);
  void note(const Copied& piece, std::string_view what);

  // The filter on the disk's graph and away from it; the disk is paused while it changes.
  Task<void> put_filter();
  Task<void> take_filter();
  JobFilter* filter() const { return filter_.get(); }
  const NodePtr& below() const { return below_; }  // what the disk was before the filter
  void forget_filter() {
    filter_.reset();
    below_.reset();
  }

  ChunkMap& todo() { return todo_; }
  RangeLock& ranges() { return ranges_; }

 private:
  Task<void> worker();
  const u64 size_;
  ChunkMap todo_;
  RangeLock ranges_;
  AsyncMutex choosing_;
  WaitList idle_;
  NodePtr below_;
  std::shared_ptr<JobFilter> filter_;
  u64 cursor_ = 0;
  unsigned workers_ = 0;
  bool stumbled_ = false;  // something of this pass was left
};

// From one node to another, by what the source's chain says.
struct RangeCopy {
  Node* from = nullptr;
  const Node* base = nullptr;  // what this and those below hold is left out; nullptr: nothing is
  Node* to = nullptr;
};
struct RangeCopied {
  IoStatus status = IoStatus::kOk;
  bool at_target = false;
  u64 bytes = 0;
};
// `may_skip_zeroes`: the target's range was never written, and reads as zeroes.
Task<RangeCopied> copy_between(RangeCopy way, u64 offset, u64 length, bool may_skip_zeroes,
                               std::span<std::byte> memory);
// How much from `offset` on needs no data moved, at least `least`, at most `length`.
Task<u64> empty_reach(Node* from, const Node* base, u64 offset, u64 length, u64 least);

}  // namespace bulkhead::block
