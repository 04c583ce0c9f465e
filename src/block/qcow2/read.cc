// From the disk's bytes to where they are.
#include "block/qcow2/compression.h"
#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

IoStatus Qcow2Node::corrupt(std::string what) {
  note_error(fmt::format("image '{}' is corrupt: {}", name(), what));
  return IoStatus::kCorrupt;
}

// What needs no waiting. False: a table has to be read first.
bool Qcow2Node::map_now(u64 offset, u64 length, Extent* out) {
  const u64 entry = l1_[layout_.l1_index(offset)], table = entry & spec::kOffsetMask;
  if (table == 0) {
    const u64 span = header_.bytes_per_l1();
    *out = {.length = std::min(length, span - (offset & (span - 1)))};
    return true;
  }
  const Table* const slice = l2_.find(table + layout_.slice_at(offset));
  if (slice == nullptr) return false;
  *out = layout_.extent(slice->bytes(), offset, length);
  return true;
}

Task<IoResult<Extent>> Qcow2Node::map(u64 offset, u64 length) {
  Extent extent;
  if (map_now(offset, length, &extent)) co_return extent;
  const u64 table = l1_[layout_.l1_index(offset)] & spec::kOffsetMask;
  if (!is_aligned(table, layout_.cluster()))
    co_return std::unexpected(corrupt(fmt::format("an L2 table is said to be at byte {:#x}", table)));
  auto slice = co_await l2_.load(table + layout_.slice_at(offset));
  if (!slice) co_return std::unexpected(slice.error());
  co_return layout_.extent((*slice)->bytes(), offset, length);
}

bool Qcow2Node::judge(const Extent& extent, u64 offset) {
  if (extent.kind != ExtentKind::kBad) return true;
  corrupt(fmt::format("the entry for byte {:#x} of the disk contradicts itself", offset));
  return false;
}

Task<IoStatus> Qcow2Node::do_read(u64 offset, Buffers data) {
  const u64 length = total_bytes(data);
  RangeLock::Hold hold{locks_, offset, length, RangeLock::Mode::kShared};
  co_await hold.acquire();
  Extent extent;
  // Nearly always one run of one kind, found in memory.
  if (map_now(offset, length, &extent) && extent.length == length && extent.kind == ExtentKind::kData) {
    const IoStatus status = co_await read_data(offset, extent.host, data);
    co_return status;
  }
  const IoStatus status = co_await read_parts(offset, data, length);
  co_return status;
}

Task<IoStatus> Qcow2Node::read_parts(u64 offset, Buffers data, u64 length) {
  for (u64 done = 0; done < length;) {
    auto extent = co_await map(offset + done, length - done);
    if (!extent) co_return extent.error();
    if (!judge(*extent, offset + done)) co_return IoStatus::kCorrupt;
    const BufferSlice piece{data, done, extent->length};
    BH_IO_TRY(co_await read_extent(offset + done, &*extent, piece));
    done += extent->length;
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::read_extent(u64 offset, const Extent* extent, Buffers data) {
  switch (extent->kind) {
    case ExtentKind::kData:
      co_return co_await read_data(offset, extent->host, data);
    case ExtentKind::kCompressed:
      co_return co_await read_compressed(extent->descriptor, offset & (layout_.cluster() - 1), data);
    case ExtentKind::kUnallocated:
      co_return co_await read_backing(offset, data);
    case ExtentKind::kZero:
    case ExtentKind::kBad:
      break;
  }
  fill_zero(data, 0, extent->length);
  co_return IoStatus::kOk;
}

// Behind the backing image's end there are zeroes.
Task<IoStatus> Qcow2Node::read_backing(u64 offset, Buffers data) {
  const u64 length = total_bytes(data);
  Node* const below = backing();
  const u64 there = below == nullptr || offset >= below->size() ? 0 : std::min(length, below->size() - offset);
  if (there != 0) {
    const BufferSlice piece{data, 0, there};
    BH_IO_TRY(co_await below->read(offset, piece));
  }
  fill_zero(data, there, length - there);
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::read_compressed(u64 descriptor, u64 within, Buffers data) {
  if (header_.encrypted()) co_return corrupt("it is encrypted and has a compressed cluster");
  if (cached_descriptor_ != descriptor) {
    const CompressedPlace place = layout_.place(descriptor);
    AlignedMemory packed{place.bytes}, whole{layout_.cluster()};
    if (!packed || !whole) co_return IoStatus::kIoError;
    BH_IO_TRY(co_await file().read_bytes(place.offset, packed.bytes()));
    bool good = false;
    std::function<void()> work = [&] { good = unpack(header_.compression, packed.bytes(), whole.bytes()); };
    co_await executor().call(work);
    if (!good)
      co_return corrupt(fmt::format("the compressed cluster at byte {:#x} of its file does not unpack", place.offset));
    cached_ = std::move(whole);
    cached_descriptor_ = descriptor;
  }
  copy_in(data, 0, cached_.bytes().subspan(within, total_bytes(data)));
  co_return IoStatus::kOk;
}

Task<IoResult<BlockStatus>> Qcow2Node::do_block_status(u64 offset, u64 length) {
  using Kind = BlockStatus::Kind;
  BlockStatus out;
  out.length = 0;
  while (out.length < length) {
    const u64 at = offset + out.length;
    auto found = co_await map(at, length - out.length);
    if (!found) co_return std::unexpected(found.error());
    if (!judge(*found, at)) co_return std::unexpected(IoStatus::kCorrupt);
    BlockStatus here;
    here.kind = found->kind == ExtentKind::kUnallocated ? Kind::kUnallocated
                : found->kind == ExtentKind::kZero      ? Kind::kZero
                                                        : Kind::kData;
    here.allocated = found->kind != ExtentKind::kUnallocated;
    here.compressed = found->kind == ExtentKind::kCompressed;
    if (found->kind != ExtentKind::kUnallocated && found->has_host && !header_.encrypted())
      here.host = data_, here.host_offset = found->host;
    if (out.length != 0 &&
        (here.kind != out.kind || here.allocated != out.allocated || here.compressed != out.compressed ||
         here.host != out.host || (here.host != nullptr && here.host_offset != out.host_offset + out.length)))
      break;
    const u64 before = out.length;
    if (before == 0) out = here;
    out.length = before + found->length;
  }
  co_return out;
}

}  // namespace bulkhead::block::qcow2
