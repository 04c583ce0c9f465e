// A disk in memory that remembers what it was asked, and can be told to fail or to wait. For tests of devices.
#pragma once
#include <algorithm>
#include <cstring>

#include "block/disk/disk.h"

namespace bulkhead::block::testing {

// What is atomic may be changed and read by the test's thread at any time, the rest while nothing is in flight.
class MemoryNode final : public Node {
 public:
  MemoryNode(Executor& executor, u64 size, DiskAccess access) : Node{executor, "memory", access}, bytes(size) {
    set_size(size);
  }
  std::string_view driver() const override { return "memory"; }
  bool supports_discard() const override { return can_discard && !read_only(); }

  std::string journal() {  // r, w, f, d, z in the order of coming; since it was asked last
    const std::lock_guard lock{mutex_};
    return std::exchange(journal_, {});
  }
  void await_busy(unsigned requests = 1) const {
    while (busy < requests) std::this_thread::yield();
  }

  std::vector<std::byte> bytes;
  bool can_discard = true;
  std::atomic<IoStatus> answer{IoStatus::kOk};
  std::atomic<bool> held{false};     // requests wait while this is so
  std::atomic<unsigned> busy{0};     // requests that have begun and not ended
  std::atomic<unsigned> deepest{0};  // the most of these
  std::atomic<unsigned> flushes{0}, fuas{0};
  std::atomic<u64> discarded{0};
  std::atomic<std::size_t> most_buffers{0};

 protected:
  Task<IoStatus> do_read(u64 offset, Buffers data) override {
    co_await begin('r', data);
    if (answer == IoStatus::kOk) copy_in(data, 0, std::span{bytes}.subspan(offset, total_bytes(data)));
    co_return end();
  }
  Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags flags) override {
    co_await begin('w', data);
    if (answer == IoStatus::kOk) copy_out(data, 0, std::span{bytes}.subspan(offset, total_bytes(data)));
    fuas += has(flags, WriteFlags::kFua);
    co_return end();
  }
  Task<IoStatus> do_flush() override {
    co_await begin('f', {});
    ++flushes;
    co_return end();
  }
  Task<IoStatus> do_discard(u64 offset, u64 length) override {
    co_await begin('d', {});
    discarded += length;
    std::memset(&bytes[offset], 0, length);
    co_return end();
  }
  Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags) override {
    co_await begin('z', {});
    std::memset(&bytes[offset], 0, length);
    co_return end();
  }
  bool supports_fua() const override { return true; }

 private:
  Task<void> begin(char what, Buffers data) {
    {
      const std::lock_guard lock{mutex_};
      journal_ += what;
    }
    most_buffers = std::max<std::size_t>(most_buffers, data.size());
    deepest = std::max<unsigned>(deepest, ++busy);
    while (held) co_await executor().sleep_for(100'000);
  }
  IoStatus end() {
    --busy;
    return answer;
  }
  std::mutex mutex_;
  std::string journal_;
};

struct MemoryDisk {
  explicit MemoryDisk(u64 size, DiskAccess access = DiskAccess::kReadWrite, DiskOptions options = {.serial = "disk-0"},
                      bool can_discard = true) {
    auto executor = std::move(*Executor::create());
    node = std::make_shared<MemoryNode>(*executor, size, access);
    node->can_discard = can_discard;
    disk = std::move(*Disk::create(std::move(executor), node, std::move(options)));
  }
  ~MemoryDisk() { node->held = false; }
  MemoryNode* operator->() const { return node.get(); }

  std::shared_ptr<MemoryNode> node;
  std::unique_ptr<Disk> disk;  // goes first
};

}  // namespace bulkhead::block::testing
