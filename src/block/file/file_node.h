// The bytes of a regular file or of a host block device, unchanged: a raw disk, or what lies under an image format.
// Fidelity: complete for one opener; growing a file from outside while it is open is not noticed, shrinking it makes
// I/O errors (or zeroes, under a format).
#pragma once
#include "base/fd.h"
#include "block/file/file_lock.h"
#include "block/node/node.h"

namespace bulkhead::block {

struct FileOptions {
  std::string path;
  DiskAccess access = DiskAccess::kReadOnly;
  bool direct = false;    // O_DIRECT: the host's page cache is not used
  bool growable = false;  // under a format: any size, grows with writes behind its end, where reads give zeroes
  bool sparse = true;     // discards give space back to the host
  FileLock lock = FileLock::kAsUsed;
};

class FileNode final : public Node {
 public:
  // Any thread; may block. Errors: not there, neither file nor block device, in use, no direct I/O there; without
  // `growable` also: empty, or not whole sectors.
  static Result<std::shared_ptr<FileNode>> open(Executor& executor, FileOptions options);
  // Makes a file of `size` bytes, all holes; what was there is lost, if it is not in use.
  static Result<void> create(const std::string& path, u64 size);

  ~FileNode() override { unlock_file(fd_.get()); }
  std::string_view driver() const override { return is_device_ ? "host_device" : "file"; }
  bool supports_discard() const override { return can_punch_ && options_.sparse && !read_only(); }
  NodeLimits limits() const override { return limits_; }
  bool direct() const { return options_.direct; }
  Task<Result<void>> reopen(DiskAccess access) override;
  // What the file takes on the host, in bytes. Any thread.
  u64 allocated_bytes() const;

 protected:
  Task<IoStatus> do_read(u64 offset, Buffers data) override;
  Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags flags) override;
  Task<IoStatus> do_flush() override;
  Task<IoStatus> do_discard(u64 offset, u64 length) override;
  Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags flags) override;
  Task<IoResult<BlockStatus>> do_block_status(u64 offset, u64 length) override;
  Task<IoStatus> do_truncate(u64 size, Preallocation preallocation) override;
  bool supports_fua() const override { return true; }
  bool growable() const override { return options_.growable; }

 private:
  FileNode(Executor& executor, FileOptions options, UniqueFd fd, u64 size, bool is_device);
  Task<IoStatus> transfer(IoOp::Kind kind, u64 offset, Buffers data, u64 length, int flags);
  Task<i64> allocate(int mode, u64 offset, u64 length);
  bool may_write_at_once(const IoOp& op, u64 length);
  i64 write_at_once(const IoOp& op);
  IoStatus failed(std::string_view what, u64 offset, int error);
  void grown(u64 end) {
    if (end > size()) set_size(end);
  }

  const FileOptions options_;
  UniqueFd fd_;
  const bool is_device_;
  NodeLimits limits_;
  std::atomic<bool> can_punch_{true};  // until the host says otherwise
  bool can_zero_range_ = true;
  // Writes into the host's page cache are done by us where the file system has io_uring hand them to a worker: a copy
  // costs less than that. While they take long (the host throttles writers) they are not.
  enum class AtOnce : u8 { kUnknown, kYes, kNever } at_once_ = AtOnce::kUnknown;
  Nanoseconds not_before_ = 0, pause_ = 0;
};

}  // namespace bulkhead::block
