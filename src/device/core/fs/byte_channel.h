// A file system device over a stream of bytes: FUSE messages one behind the other, which say their own length. The far
// end is the agent, which has the messages from its kernel's /dev/fuse.
// Any thread. What is kept is bounded: one message from the zone, and replies up to kOutgoing and one for each lane.
#pragma once
#include <array>
#include <vector>

#include "device/console_backend.h"
#include "device/core/fs/fs_core.h"

namespace bulkhead::device {

class FsByteChannel final : public ConsoleBackend, private FsSource {
 public:
  static constexpr std::size_t kIncoming = FsCore::kMaxMessage + 64_KiB, kOutgoing = 256_KiB;

  explicit FsByteChannel(FsCore& core);  // `core` outlives us
  ~FsByteChannel() override;

  std::size_t write(std::span<const std::byte> data) override;
  std::size_t read(std::span<std::byte> out) override;
  void set_callbacks(std::function<void()> readable, std::function<void()> writable) override;
  void guest_open(bool open) override;  // what is left of an earlier connection is dropped

 private:
  struct Pending {
    std::vector<std::byte> request, reply;
    IoBuffer space;
    u64 connection = 0;
  };
  bool next(FsRequest& request) override;
  std::span<const IoBuffer> reply_space(unsigned lane, u32 bytes) override;
  void done(unsigned lane, u32 bytes) override;
  void signal() override;
  bool take_message(FsRequest& request) BH_REQUIRES(mutex_);

  FsCore& core_;
  Mutex mutex_;
  std::vector<std::byte> incoming_ BH_GUARDED_BY(mutex_), outgoing_ BH_GUARDED_BY(mutex_);
  std::size_t incoming_first_ BH_GUARDED_BY(mutex_) = 0, outgoing_first_ BH_GUARDED_BY(mutex_) = 0;
  bool full_ BH_GUARDED_BY(mutex_) = false;    // write() took less than it was offered
  bool broken_ BH_GUARDED_BY(mutex_) = false;  // a length that cannot be: nothing is understood any more
  u64 connection_ BH_GUARDED_BY(mutex_) = 0;
  std::array<Pending, FsCore::kMaxLanes> lanes_;  // the core's thread's
  std::function<void()> readable_, writable_;
};

}  // namespace bulkhead::device
