// One piece of a disk's graph: a file, an image format, a filter. Nodes have children (a format its file, an image its
// backing image); the top one is what a Disk shows its device.
//
// Threads: all on the executor's, but where it says otherwise. Requests run in parallel, in no order; a driver
// serialises what it must. Answers are statuses: nothing a guest or an image says is a crash.
//
// Who calls uses the public half: it judges ranges, cuts and aligns for the driver, counts and times. A driver writes
// the protected half, where offsets, lengths and memory are as its limits() ask and within [0, size()).
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "block/async/range_lock.h"
#include "block/buffers.h"
#include "block/node/node_stats.h"

namespace bulkhead::block {

inline constexpr u64 kSectorSize = 512;

enum class DiskAccess : u8 { kReadOnly, kReadWrite };

// What a driver asks of its requests. Powers of two; whoever is above need not care, the public half sees to it.
struct NodeLimits {
  u32 request_alignment = 1;      // offsets and lengths of reads and writes, bytes
  u32 memory_alignment = 1;       // addresses and lengths of their memory
  u64 max_transfer = 1_GiB;       // bytes of one read or write
  u64 max_range = 1_GiB;          // bytes of one discard or write_zeroes
  u32 discard_alignment = 1;      // what is not aligned so is left out of a discard
  u32 optimal_transfer = 64_KiB;  // a hint for jobs and guests: the cluster size
};

// What one write asks besides writing. May be or-ed.
enum class WriteFlags : u8 {
  kNone = 0,
  kFua = 1,         // on stable storage when it completes
  kMayUnmap = 2,    // write_zeroes: may give the space back
  kNoFallback = 4,  // write_zeroes: kUnsupported rather than slow writing of zeroes
  kUnchanged = 8,   // reads as before: bitmaps of what was written need not know
};
constexpr WriteFlags operator|(WriteFlags a, WriteFlags b) {
  return static_cast<WriteFlags>(static_cast<u8>(a) | static_cast<u8>(b));
}
constexpr bool has(WriteFlags flags, WriteFlags one) { return (static_cast<u8>(flags) & static_cast<u8>(one)) != 0; }

class Node;
using NodePtr = std::shared_ptr<Node>;

// What a range of a node is. All of [offset, offset + length) is the same.
struct BlockStatus {
  enum class Kind : u8 {
    kData,         // must be read to be known
    kZero,         // reads as zeroes
    kUnallocated,  // this node says nothing: its backing node does, and without one it reads as zeroes
  };
  Kind kind = Kind::kData;
  u64 length = 0;         // bytes from the offset that was asked; at least 1
  bool allocated = true;  // takes space in this node (a preallocated zero does, a hole does not)
  bool compressed = false;
  Node* host = nullptr;  // where the bytes are, as they are, at host_offset; null: nowhere so simple
  u64 host_offset = 0;
};

enum class ChildRole : u8 { kFile, kBacking, kData, kFiltered, kTarget };
struct Child {
  ChildRole role;
  NodePtr node;
};

enum class Preallocation : u8 { kOff, kMetadata, kFalloc, kFull };

class Node : public std::enable_shared_from_this<Node> {
 public:
  Node(Executor& executor, std::string name, DiskAccess access)
      : executor_{executor}, name_{std::move(name)}, access_{access}, idle_{executor}, ranges_{executor} {}
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // --- any thread
  virtual std::string_view driver() const = 0;       // "file", "qcow2", ...
  const std::string& name() const { return name_; }  // for people: a file's name
  Executor& executor() const { return executor_; }
  u64 size() const { return size_.load(std::memory_order_relaxed); }  // bytes
  bool read_only() const { return access_.load(std::memory_order_relaxed) == DiskAccess::kReadOnly; }
  virtual bool supports_discard() const { return false; }
  NodeStats& stats() { return stats_; }
  std::string last_error() const;  // why the last request that failed did, in words; may be empty

  // --- requests; executor's thread. `data` and what it names stay until the end.
  Task<IoStatus> read(u64 offset, Buffers data);
  Task<IoStatus> write(u64 offset, Buffers data, WriteFlags flags = WriteFlags::kNone);
  Task<IoStatus> flush();
  // A hint: what cannot be given back stays, and reads as before or as zeroes.
  Task<IoStatus> discard(u64 offset, u64 length);
  Task<IoStatus> write_zeroes(u64 offset, u64 length, WriteFlags flags = WriteFlags::kNone);
  // Of [offset, offset + length): the kind at `offset`, and how far it reaches, at most `length`. length > 0.
  Task<IoResult<BlockStatus>> block_status(u64 offset, u64 length);
  // Grows (with zeroes) or shrinks.
  Task<IoStatus> truncate(u64 size, Preallocation preallocation = Preallocation::kOff);
  // One buffer of our own memory.
  Task<IoStatus> read_bytes(u64 offset, std::span<std::byte> to);
  Task<IoStatus> write_bytes(u64 offset, std::span<const std::byte> from, WriteFlags flags = WriteFlags::kNone);

  virtual NodeLimits limits() const { return {}; }
  bool grows() const { return growable(); }

  // --- the graph; executor's thread
  const std::vector<Child>& children() const { return children_; }
  Node* child(ChildRole role) const;  // the first of that role, or nullptr
  // Puts `now` where `before` is. With nothing in flight through this node.
  virtual void replace_child(const Node& before, NodePtr now);
  // The first child of that role, which is none any more; or nullptr. With nothing in flight through this node.
  NodePtr detach(ChildRole role);
  // Reads and writes from now on, or reads only, with what is below it that is its own (not its backing image). With
  // nothing in flight through this node. Errors: not with this file now, or not by this driver; it is as before.
  virtual Task<Result<void>> reopen(DiskAccess access);
  Task<void> wait_idle();  // until no request is in flight; who goes on sending is not held back (see Disk::pause)
  u64 in_flight() const { return stats_.depth(); }

  // Last things before the node ends: writes back what is cached. Nothing is in flight. See close_graph().
  Task<IoStatus> close();

 protected:
  virtual Task<IoStatus> do_read(u64 offset, Buffers data) = 0;
  virtual Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags flags) = 0;
  virtual Task<IoStatus> do_flush() = 0;
  // kUnsupported: the public half says kOk for discard, and writes zeroes for write_zeroes.
  virtual Task<IoStatus> do_discard(u64 offset, u64 length);
  virtual Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags flags);
  virtual Task<IoResult<BlockStatus>> do_block_status(u64 offset, u64 length);  // all data, unless the driver knows
  virtual Task<IoStatus> do_truncate(u64 size, Preallocation preallocation);
  virtual Task<IoStatus> do_close();
  // A driver that has kFua done by its own means says so; for others write is followed by flush.
  virtual bool supports_fua() const { return false; }
  // True: reads past size() give zeroes and writes past it grow the node. For what lies under a format.
  virtual bool growable() const { return false; }

  void set_size(u64 bytes) { size_.store(bytes, std::memory_order_relaxed); }
  void set_access(DiskAccess access) { access_.store(access, std::memory_order_relaxed); }
  void add_child(ChildRole role, NodePtr node) { children_.push_back({role, std::move(node)}); }
  std::vector<Child>& mutable_children() { return children_; }
  void note_error(std::string text);
  Task<IoStatus> zero_by_writing(u64 offset, u64 length);
  RangeLock& ranges() { return ranges_; }

 private:
  class Tracked;
  bool fits(u64 offset, u64 length) const;
  Task<IoStatus> read_pieces(u64 offset, Buffers data, u64 length, const NodeLimits& limits);
  Task<IoStatus> read_bounced(u64 offset, Buffers data, u64 skip, u64 length, const NodeLimits& limits);
  Task<IoStatus> write_pieces(u64 offset, Buffers data, u64 length, WriteFlags flags, const NodeLimits& limits);
  Task<IoStatus> write_bounced(u64 offset, Buffers data, u64 skip, u64 length, WriteFlags flags,
                               const NodeLimits& limits);
  Task<IoStatus> zero_pieces(u64 offset, u64 length, WriteFlags flags, const NodeLimits& limits);
  Executor& executor_;
  const std::string name_;
  std::atomic<DiskAccess> access_;
  std::atomic<u64> size_{0};
  std::vector<Child> children_;
  NodeStats stats_;
  bool closed_ = false;
  WaitList idle_;
  RangeLock ranges_;  // writes that read around themselves exclude others from there
  mutable std::mutex error_mutex_;
  std::string error_;
};

// Closes a node and then what is below it, each once. The first error.
Task<IoStatus> close_graph(NodePtr root);

}  // namespace bulkhead::block
