// Requests as a driver wants them: cut to its longest, and through memory of ours where the host asks for alignment
// that the request does not have.
#include <algorithm>

#include "base/bits.h"
#include "block/node/node.h"

namespace bulkhead::block {
namespace {

constexpr u64 kBounceBytes = 1_MiB;  // of memory of ours in one request at a time
constexpr u64 kZeroBytes = 1_MiB;

// The longest piece at `offset` that is no longer than `most` and, if it goes on, ends aligned.
u64 piece_at(u64 offset, u64 length, u64 most, u64 alignment) {
  if (length <= most) return length;
  const u64 end = align_down(offset + most, alignment);
  return end > offset ? end - offset : most;
}

}  // namespace

Task<IoStatus> Node::read_pieces(u64 offset, Buffers data, u64 length, const NodeLimits& limits) {
  for (u64 done = 0; done < length;) {
    const u64 at = offset + done;
    u64 count = piece_at(at, length - done, limits.max_transfer, limits.request_alignment);
    const BufferSlice slice{data, done, count};
    IoStatus status;
    if (is_aligned(at | count, limits.request_alignment) && memory_aligned(slice, limits.memory_alignment)) {
      status = co_await do_read(at, slice);
    } else {
      count = piece_at(at, count, std::min(kBounceBytes, limits.max_transfer), limits.request_alignment);
      status = co_await read_bounced(at, data, done, count, limits);
    }
    if (status != IoStatus::kOk) co_return status;
    done += count;
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> Node::read_bounced(u64 offset, Buffers data, u64 skip, u64 length, const NodeLimits& limits) {
  stats_.counters[NodeStats::kBounced].add();
  const u64 begin = align_down(offset, limits.request_alignment);
  const AlignedMemory memory{align_up(offset + length, limits.request_alignment) - begin};
  if (!memory) co_return IoStatus::kIoError;
  const IoBuffer whole = memory.buffer();
  const IoStatus status = co_await do_read(begin, Buffers{&whole, 1});
  if (status == IoStatus::kOk) copy_in(data, skip, memory.bytes().subspan(offset - begin, length));
  co_return status;
}

Task<IoStatus> Node::write_pieces(u64 offset, Buffers data, u64 length, WriteFlags flags, const NodeLimits& limits) {
  for (u64 done = 0; done < length;) {
    const u64 at = offset + done;
    u64 count = piece_at(at, length - done, limits.max_transfer, limits.request_alignment);
    const BufferSlice slice{data, done, count};
    IoStatus status;
    if (is_aligned(at | count, limits.request_alignment) && memory_aligned(slice, limits.memory_alignment)) {
      RangeLock::Hold hold{ranges_, at, count, RangeLock::Mode::kShared};
      co_await hold.acquire();
      status = co_await do_write(at, slice, flags);
    } else {
      count = piece_at(at, count, std::min(kBounceBytes, limits.max_transfer), limits.request_alignment);
      status = co_await write_bounced(at, data, done, count, flags, limits);
    }
    if (status != IoStatus::kOk) co_return status;
    done += count;
  }
  co_return IoStatus::kOk;
}

// Reads what the driver's blocks hold around the request, and writes them whole.
Task<IoStatus> Node::write_bounced(u64 offset, Buffers data, u64 skip, u64 length, WriteFlags flags,
                                   const NodeLimits& limits) {
  stats_.counters[NodeStats::kBounced].add();
  const u64 block = limits.request_alignment, begin = align_down(offset, block),
            last = align_down(offset + length - 1, block);
  const AlignedMemory memory{last + block - begin};
  if (!memory) co_return IoStatus::kIoError;
  RangeLock::Hold hold{ranges_, begin, memory.size(), RangeLock::Mode::kExclusive};
  co_await hold.acquire();
  const bool head = begin != offset, tail = last + block != offset + length;
  if (head || (tail && last == begin)) {
    const IoBuffer first{memory.data(), block};
    BH_IO_TRY(co_await do_read(begin, Buffers{&first, 1}));
  }
  if (tail && last != begin) {
    const IoBuffer end{memory.data() + (last - begin), block};
    BH_IO_TRY(co_await do_read(last, Buffers{&end, 1}));
  }
  copy_out(data, skip, memory.bytes().subspan(offset - begin, length));
  const IoBuffer whole = memory.buffer();
  co_return co_await do_write(begin, Buffers{&whole, 1}, flags);
}

// The driver's own way for what is aligned, zeroes written for the rest and where it has none.
Task<IoStatus> Node::zero_pieces(u64 offset, u64 length, WriteFlags flags, const NodeLimits& limits) {
  const u64 end = offset + length;
  bool slow = false;
  for (u64 at = offset; at < end;) {
    const u64 block = limits.request_alignment;
    const u64 until_block = std::min(align_up(at, block), end) - at;
    u64 count = until_block != 0 ? until_block : std::min(end - at, limits.max_range);
    if (until_block == 0 && count >= block) count = align_down(count, block);
    IoStatus status = IoStatus::kUnsupported;
    if (until_block == 0 && count >= block && !slow) {
      RangeLock::Hold hold{ranges_, at, count, RangeLock::Mode::kShared};
      co_await hold.acquire();
      status = co_await do_write_zeroes(at, count, flags);
    }
    if (status == IoStatus::kUnsupported) {
      if (has(flags, WriteFlags::kNoFallback)) co_return status;
      slow = slow || (until_block == 0 && count >= block);
      status = co_await zero_by_writing(at, count);
    }
    if (status != IoStatus::kOk) co_return status;
    at += count;
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> Node::zero_by_writing(u64 offset, u64 length) {
  const AlignedMemory memory{std::min(length, kZeroBytes)};
  if (!memory) co_return IoStatus::kIoError;
  std::ranges::fill(memory.bytes(), std::byte{0});
  const NodeLimits limits = this->limits();
  for (u64 done = 0; done < length;) {
    const u64 count = std::min(memory.size(), length - done);
    const IoBuffer piece{memory.data(), count};
    BH_IO_TRY(co_await write_pieces(offset + done, Buffers{&piece, 1}, count, WriteFlags::kNone, limits));
    done += count;
  }
  co_return IoStatus::kOk;
}

}  // namespace bulkhead::block
