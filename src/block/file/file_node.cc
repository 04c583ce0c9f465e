#include "block/file/file_node.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "base/bits.h"

namespace bulkhead::block {

Task<IoStatus> FileNode::do_read(u64 offset, Buffers data) {
  return transfer(IoOp::Kind::kRead, offset, data, total_bytes(data), 0);
}

Task<IoStatus> FileNode::do_write(u64 offset, Buffers data, WriteFlags flags) {
  const u64 length = total_bytes(data);
  const IoStatus status =
      co_await transfer(IoOp::Kind::kWrite, offset, data, length, has(flags, WriteFlags::kFua) ? RWF_DSYNC : 0);
  if (status == IoStatus::kOk && options_.growable) grown(offset + length);
  co_return status;
}

Task<IoStatus> FileNode::transfer(IoOp::Kind kind, u64 offset, Buffers data, u64 length, int flags) {
  IoOp op;
  op.kind = kind;
  op.fd = fd_.get();
  op.flags = flags;
  for (u64 done = 0; done < length;) {
    // Nearly always all of it, as it came.
    const bool whole = done == 0 && data.size() <= IoOp::kMaxPieces;
    const BufferSlice rest{data, whole ? 0 : done, whole ? 0 : length - done};
    op.buffers = whole ? data : rest.get().first(std::min(rest.get().size(), IoOp::kMaxPieces));
    op.offset = offset + done;
    i64 moved;
    if (may_write_at_once(op, length))
      moved = write_at_once(op);
    else
      moved = co_await executor().io(op);
    if (moved == -EAGAIN) moved = co_await executor().io(op);
    if (moved < 0)
      co_return failed(kind == IoOp::Kind::kRead ? "reading" : "writing", op.offset, static_cast<int>(-moved));
    if (moved == 0) {
      if (kind == IoOp::Kind::kWrite) co_return failed("writing", op.offset, EIO);
      // The end of the file: an aligned read's last bytes, or a format's that were never written.
      if (!options_.growable && offset + done < size()) co_return failed("reading", op.offset, EIO);
      fill_zero(data, done, length - done);
      co_return IoStatus::kOk;
    }
    done += static_cast<u64>(moved);
    // Direct I/O that stopped short of a block goes on at the block's start.
    if (done < length && !is_aligned(done, limits_.request_alignment)) {
      if (kind == IoOp::Kind::kRead && offset + done >= size()) {
        fill_zero(data, done, length - done);
        co_return IoStatus::kOk;
      }
      done = align_down(done, limits_.request_alignment);
    }
  }
  co_return IoStatus::kOk;
}

namespace {
constexpr u64 kMostAtOnce = 64_KiB;
constexpr Nanoseconds kLong = 8'000'000, kFirstPause = 20'000'000, kLongestPause = 2'000'000'000;
}  // namespace

bool FileNode::may_write_at_once(const IoOp& op, u64 length) {
  return at_once_ != AtOnce::kNever && op.kind == IoOp::Kind::kWrite && op.flags == 0 && length <= kMostAtOnce &&
         !options_.direct && !is_device_ && (not_before_ == 0 || executor().now() >= not_before_);
}

i64 FileNode::write_at_once(const IoOp& op) {
  // A file system that can say "not now" lets io_uring try by itself, and better.
  const int flags = at_once_ == AtOnce::kUnknown ? RWF_NOWAIT : 0;
  const Nanoseconds begin = executor().now();
  i64 result = ::pwritev2(fd_.get(), iovecs_of(op.buffers), static_cast<int>(op.buffers.size()),
                          static_cast<off_t>(op.offset), flags);
  if (result < 0) result = -errno;
  if (at_once_ == AtOnce::kUnknown) {
    at_once_ = result == -EOPNOTSUPP ? AtOnce::kYes : AtOnce::kNever;
    return result == -EOPNOTSUPP ? -EAGAIN : result;
  }
  const Nanoseconds now = executor().now();
  if (now - begin < kLong) {
    not_before_ = pause_ = 0;
  } else {
    pause_ = std::clamp(pause_ * 2, kFirstPause, kLongestPause);
    not_before_ = now + pause_;
  }
  return result == -EINTR ? -EAGAIN : result;
}

Task<IoStatus> FileNode::do_flush() {
  IoOp op;
  op.kind = IoOp::Kind::kSync;
  op.fd = fd_.get();
  const i64 result = co_await executor().io(op);
  co_return result < 0 ? failed("flushing", 0, static_cast<int>(-result)) : IoStatus::kOk;
}

Task<i64> FileNode::allocate(int mode, u64 offset, u64 length) {
  IoOp op;
  op.kind = IoOp::Kind::kAllocate;
  op.fd = fd_.get();
  op.flags = mode | FALLOC_FL_KEEP_SIZE;
  op.offset = offset;
  op.length = length;
  co_return co_await executor().io(op);
}

Task<IoStatus> FileNode::do_discard(u64 offset, u64 length) {
  if (!can_punch_ || !options_.sparse) co_return IoStatus::kUnsupported;
  const i64 result = co_await allocate(FALLOC_FL_PUNCH_HOLE, offset, length);
  if (result == 0) co_return IoStatus::kOk;
  if (result == -EIO || result == -ENOSPC) co_return failed("discarding", offset, static_cast<int>(-result));
  can_punch_ = false;
  co_return IoStatus::kUnsupported;
}

Task<IoStatus> FileNode::do_write_zeroes(u64 offset, u64 length, WriteFlags flags) {
  // Behind a growing file's end: zeroes are there already once it is long enough.
  if (options_.growable && !is_device_ && offset + length > size()) {
    const u64 end = offset + length;
    if (offset < size()) {
      const IoStatus status = co_await do_write_zeroes(offset, size() - offset, flags);
      if (status != IoStatus::kOk) co_return status;
    }
    // By writing our own last bytes, and not by ftruncate: that could cut off what another request writes behind us and
    // whose end we have not heard of yet.
    const AlignedMemory last{limits_.request_alignment};
    if (!last) co_return IoStatus::kIoError;
    std::ranges::fill(last.bytes(), std::byte{0});
    const IoBuffer buffer = last.buffer();
    const IoStatus status =
        co_await transfer(IoOp::Kind::kWrite, end - last.size(), Buffers{&buffer, 1}, last.size(), 0);
    if (status == IoStatus::kOk) grown(end);
    co_return status;
  }
  if (has(flags, WriteFlags::kMayUnmap) && can_punch_ && options_.sparse) {
    const i64 result = co_await allocate(FALLOC_FL_PUNCH_HOLE, offset, length);
    if (result == 0) co_return IoStatus::kOk;
    if (result == -EIO || result == -ENOSPC) co_return failed("zeroing", offset, static_cast<int>(-result));
    can_punch_ = false;
  }
  if (!can_zero_range_) co_return IoStatus::kUnsupported;
  const i64 result = co_await allocate(FALLOC_FL_ZERO_RANGE, offset, length);
  if (result == 0) co_return IoStatus::kOk;
  if (result == -EIO || result == -ENOSPC) co_return failed("zeroing", offset, static_cast<int>(-result));
  can_zero_range_ = false;
  co_return IoStatus::kUnsupported;
}

Task<IoResult<BlockStatus>> FileNode::do_block_status(u64 offset, u64 length) {
  BlockStatus status{.length = length, .host = this, .host_offset = offset};
  if (is_device_) co_return status;
  const auto at = static_cast<off_t>(offset);
  const off_t data = ::lseek(fd_.get(), at, SEEK_DATA);
  if (data < 0 && errno != ENXIO) co_return status;  // cannot tell: data
  if (data == at) {
    const off_t hole = ::lseek(fd_.get(), at, SEEK_HOLE);
    if (hole > at) status.length = std::min<u64>(length, static_cast<u64>(hole) - offset);
    co_return status;
  }
  status.kind = BlockStatus::Kind::kZero;
  status.allocated = false;
  if (data > at) status.length = std::min<u64>(length, static_cast<u64>(data) - offset);
  co_return status;
}

Task<IoStatus> FileNode::do_truncate(u64 bytes, Preallocation preallocation) {
  if (is_device_) co_return bytes <= size() ? IoStatus::kOk : IoStatus::kNoSpace;
  const u64 before = size();
  if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) co_return failed("resizing", bytes, errno);
  set_size(bytes);
  if (bytes <= before || preallocation == Preallocation::kOff) co_return IoStatus::kOk;
  if (preallocation == Preallocation::kFull) co_return co_await zero_by_writing(before, bytes - before);
  const i64 result = co_await allocate(0, before, bytes - before);
  co_return result < 0 ? failed("allocating", before, static_cast<int>(-result)) : IoStatus::kOk;
}

u64 FileNode::allocated_bytes() const {
  struct stat info{};
  return ::fstat(fd_.get(), &info) == 0 ? static_cast<u64>(info.st_blocks) * 512 : 0;
}

IoStatus FileNode::failed(std::string_view what, u64 offset, int error) {
  note_error(fmt::format("{} '{}' at byte {}: {}", what, name(), offset, std::strerror(error)));
  return status_of_errno(error);
}

}  // namespace bulkhead::block
