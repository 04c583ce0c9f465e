#include "block/tools/copy.h"

#include <algorithm>

#include "base/bits.h"
#include "block/qcow2/compression.h"

namespace bulkhead::block::tools {
namespace {

constexpr u64 kChunk = 1_MiB;
using Kind = BlockStatus::Kind;

Error error_of(const Node& node, std::string_view what, u64 offset, IoStatus status) {
  const std::string why = node.last_error();
  return {fmt::format("{} '{}' at byte {} failed: {}", what, node.name(), offset,
                      why.empty() ? std::string{text_of(status)} : why)};
}

// What the workers of one copy share.
struct Job {
  Job(Node* source, Node* target, CopyOptions how, CopyProgress* bar)
      : from{source}, to{target}, options{how}, progress{bar}, looking{source->executor()}, ended{source->executor()} {}
  Node* from;
  Node* to;
  const CopyOptions options;
  CopyProgress* progress;
  AsyncMutex looking;
  WaitList ended;
  u64 at = 0, size = 0;
  unsigned workers = 0;
  u64 known_end = 0;  // the status below is known up to here
  Kind known = Kind::kData;
  Result<void> result{};
};

struct Piece {
  u64 offset = 0, length = 0;
  Kind kind = Kind::kData;
};

// The next part to be copied; of length 0 at the end.
Task<Result<Piece>> next_piece(Job* job) {
  auto guard = co_await job->looking.lock();
  const u64 chunk = job->options.compress ? job->to->limits().optimal_transfer : kChunk;
  Piece piece{job->at, 0, Kind::kData};
  if (!job->result || job->at >= job->size) co_return piece;
  if (job->at >= job->known_end) {
    const bool top = job->options.only_top, above = job->options.only_above;
    IoResult<ChainStatus> found;
    if (top) {
      auto one = co_await job->from->block_status(job->at, job->size - job->at);
      if (one)
        found = ChainStatus{.status = *one};
      else
        found = std::unexpected(one.error());
    } else {
      found = co_await chain_status(job->from, above ? job->options.base : nullptr, job->at, job->size - job->at);
    }
    if (!found) co_return std::unexpected(error_of(*job->from, "examining", job->at, found.error()));
    job->known = found->status.kind;
    job->known_end = job->at + found->status.length;
    // Compressed clusters are whole: what ends within one is copied as data.
    if (job->options.compress && job->known_end < job->size && !is_aligned(job->known_end, chunk)) {
      if (job->known_end - job->at < chunk) job->known = Kind::kData;
      job->known_end = std::min(
          job->size, job->known == Kind::kData ? align_up(job->known_end, chunk) : align_down(job->known_end, chunk));
    }
  }
  piece.kind = job->known;
  piece.length = job->known_end - job->at;
  if (piece.kind == Kind::kData) piece.length = std::min(piece.length, align_down(job->at, chunk) + chunk - job->at);
  job->at += piece.length;
  co_return piece;
}

Task<IoStatus> write_compressed(Job* job, const Piece* piece, AlignedMemory* memory, AlignedMemory* packed) {
  qcow2::Qcow2Node* const image = as_qcow2(job->to);
  const u64 cluster = image->layout().cluster();
  std::memset(memory->data() + piece->length, 0, cluster - piece->length);
  u64 size = 0;
  std::function<void()> work = [&] {
    size = qcow2::pack(image->header().compression, memory->bytes().first(cluster), packed->bytes().first(cluster - 1));
  };
  co_await job->to->executor().call(work);
  if (size != 0) co_return co_await image->write_compressed(piece->offset, packed->bytes().first(size));
  co_return co_await job->to->write_bytes(piece->offset, memory->bytes().first(piece->length));
}

// Writes what is not zero of it.
Task<IoStatus> write_sparse(Job* job, const Piece* piece, AlignedMemory* memory) {
  const u64 grain = job->options.sparse_bytes;
  const auto zero_at = [&](u64 at) {
    return all_zero(std::span<const std::byte>{memory->bytes()}.subspan(at, std::min(grain, piece->length - at)));
  };
  if (grain == 0) co_return co_await job->to->write_bytes(piece->offset, memory->bytes().first(piece->length));
  for (u64 at = 0; at < piece->length;) {
    const bool zero = zero_at(at);
    u64 end = std::min(at + grain, piece->length);
    while (end < piece->length && zero_at(end) == zero) end = std::min(end + grain, piece->length);
    if (!zero)
      BH_IO_TRY(co_await job->to->write_bytes(piece->offset + at, memory->bytes().subspan(at, end - at)));
    else if (!job->options.target_is_zero)
      BH_IO_TRY(co_await job->to->write_zeroes(piece->offset + at, end - at, WriteFlags::kMayUnmap));
    at = end;
  }
  co_return IoStatus::kOk;
}

Task<IoStatus> put_piece(Job* job, const Piece* piece, AlignedMemory* memory, AlignedMemory* packed) {
  if (piece->kind == Kind::kUnallocated && (job->options.only_top || job->options.only_above)) co_return IoStatus::kOk;
  if (piece->kind != Kind::kData) {
    if (job->options.target_is_zero && job->options.sparse_bytes != 0) co_return IoStatus::kOk;
    co_return co_await job->to->write_zeroes(
        piece->offset, piece->length, job->options.sparse_bytes == 0 ? WriteFlags::kNone : WriteFlags::kMayUnmap);
  }
  if (!job->options.compress) co_return co_await write_sparse(job, piece, memory);
  if (job->options.target_is_zero && all_zero(std::span<const std::byte>{memory->bytes()}.first(piece->length)))
    co_return IoStatus::kOk;
  co_return co_await write_compressed(job, piece, memory, packed);
}

Task<void> worker(Job* job) {
  AlignedMemory memory{std::max<u64>(kChunk, job->to->limits().optimal_transfer)};
  AlignedMemory packed{job->options.compress ? memory.size() : 1};
  while (memory && packed) {
    auto piece = co_await next_piece(job);
    if (!piece) {
      job->result = std::unexpected(piece.error());
      break;
    }
    if (piece->length == 0) break;
    IoStatus status = IoStatus::kOk;
    if (piece->kind == Kind::kData) {
      status = co_await job->from->read_bytes(piece->offset, memory.bytes().first(piece->length));
      if (status != IoStatus::kOk)
        job->result = std::unexpected(error_of(*job->from, "reading", piece->offset, status));
    }
    if (status != IoStatus::kOk) break;
    status = co_await put_piece(job, &*piece, &memory, &packed);
    if (status != IoStatus::kOk) {
      job->result = std::unexpected(error_of(*job->to, "writing", piece->offset, status));
      break;
    }
    job->progress->done += piece->length;
  }
  if (!memory || !packed) job->result = fail("no memory to copy with");
  --job->workers;
  job->ended.wake_all();
}

// What shows through `node` where it says nothing; through a filter that is what shows through the filtered one.
Node* next_below(const Node* node) {
  while (Node* const filtered = node->child(ChildRole::kFiltered)) node = filtered;
  return node->child(ChildRole::kBacking);
}

}  // namespace

Task<IoResult<ChainStatus>> chain_status(Node* top, const Node* base, u64 offset, u64 length) {
  ChainStatus out;
  u64 most = length;
  unsigned depth = 0;
  for (Node* node = top; node != nullptr && node != base; node = next_below(node), ++depth) {
    if (offset >= node->size()) {
      // A backing image that is shorter: zeroes behind it.
      out.status = {.kind = Kind::kZero, .length = most, .allocated = false};
      out.depth = depth;
      out.present = false;
      out.zero = true;
      co_return out;
    }
    auto found = co_await node->block_status(offset, std::min(most, node->size() - offset));
    if (!found) co_return std::unexpected(found.error());
    out.status = *found;
    out.depth = depth;
    most = found->length;
    if (found->kind != Kind::kUnallocated) {
      out.present = true;
      out.zero = found->kind == Kind::kZero;
      out.data = found->kind == Kind::kData;
      co_return out;
    }
  }
  out.zero = base == nullptr;
  out.status.length = most;
  co_return out;
}

Task<Result<void>> copy(Node* from, Node* to, CopyOptions options, CopyProgress* progress) {
  Job job{from, to, options, progress};
  job.size = from->size();
  progress->total = job.size;
  if (to->size() < job.size)
    co_return fail("'{}' has {} bytes, fewer than the {} of '{}'", to->name(), to->size(), job.size, from->name());
  job.workers = std::clamp(options.parallel, 1U, 64U);
  for (unsigned i = job.workers; i != 0; --i) from->executor().spawn(worker(&job));
  while (job.workers != 0) co_await job.ended.wait();
  co_return std::move(job.result);
}

namespace {

Task<Result<bool>> reads_as_zero(Node* node, u64 offset, u64 length) {
  AlignedMemory memory{std::min(length, kChunk)};
  if (!memory) co_return fail("no memory to compare with");
  for (u64 at = offset; at < offset + length;) {
    auto found = co_await chain_status(node, nullptr, at, offset + length - at);
    if (!found) co_return std::unexpected(error_of(*node, "examining", at, found.error()));
    u64 count = found->status.length;
    if (found->data) {
      count = std::min(count, memory.size());
      const IoStatus status = co_await node->read_bytes(at, memory.bytes().first(count));
      if (status != IoStatus::kOk) co_return std::unexpected(error_of(*node, "reading", at, status));
      if (!all_zero(std::span<const std::byte>{memory.bytes()}.first(count))) co_return false;
    }
    at += count;
  }
  co_return true;
}

}  // namespace

Task<Result<Difference>> compare(Node* a, Node* b, bool strict, CopyProgress* progress) {
  AlignedMemory left{kChunk}, right{kChunk};
  if (!left || !right) co_return fail("no memory to compare with");
  const u64 common = std::min(a->size(), b->size());
  progress->total = std::max(a->size(), b->size());
  if (strict && a->size() != b->size()) co_return Difference{false, common, true};
  for (u64 at = 0; at < common;) {
    auto in_a = co_await chain_status(a, nullptr, at, common - at);
    if (!in_a) co_return std::unexpected(error_of(*a, "examining", at, in_a.error()));
    auto in_b = co_await chain_status(b, nullptr, at, common - at);
    if (!in_b) co_return std::unexpected(error_of(*b, "examining", at, in_b.error()));
    u64 count = std::min(in_a->status.length, in_b->status.length);
    if (in_a->data || in_b->data) {
      count = std::min(count, kChunk);
      IoStatus status = co_await a->read_bytes(at, left.bytes().first(count));
      if (status != IoStatus::kOk) co_return std::unexpected(error_of(*a, "reading", at, status));
      status = co_await b->read_bytes(at, right.bytes().first(count));
      if (status != IoStatus::kOk) co_return std::unexpected(error_of(*b, "reading", at, status));
      if (std::memcmp(left.data(), right.data(), count) != 0) {
        const auto differs = std::mismatch(left.data(), left.data() + count, right.data()).first;
        co_return Difference{false, at + static_cast<u64>(differs - left.data()), false};
      }
    }
    at += count;
    progress->done = at;
  }
  Node* const longer = a->size() > b->size() ? a : b;
  if (longer->size() == common) co_return Difference{};
  auto zero = co_await reads_as_zero(longer, common, longer->size() - common);
  if (!zero) co_return std::unexpected(zero.error());
  co_return *zero ? Difference{} : Difference{false, common, true};
}

namespace {

struct BenchJob {
  Node* node;
  const BenchOptions options;
  WaitList* ended;
  u64 begun = 0, done = 0, random = 0;
  u64 workers = 0;
  IoStatus status = IoStatus::kOk;
};

u64 next_offset(BenchJob& job) {
  const u64 places = (job.node->size() - job.options.offset) / job.options.size;
  if (!job.options.random) return job.options.offset + (job.begun * job.options.step) % (places * job.options.size);
  job.random ^= job.random << 13;  // xorshift64: no tail of equal places
  job.random ^= job.random >> 7;
  job.random ^= job.random << 17;
  return job.options.offset + (job.random % places) * job.options.size;
}

Task<void> bench_worker(BenchJob* job) {
  AlignedMemory memory{job->options.size};
  std::memset(memory.data(), job->options.pattern, memory.size());
  const IoBuffer buffer = memory.buffer();
  while (job->begun < job->options.count && job->status == IoStatus::kOk) {
    const u64 offset = std::min(next_offset(*job), job->node->size() - job->options.size);
    ++job->begun;
    IoStatus status;
    if (job->options.write)
      status = co_await job->node->write(offset, Buffers{&buffer, 1});
    else
      status = co_await job->node->read(offset, Buffers{&buffer, 1});
    ++job->done;
    if (status == IoStatus::kOk && job->options.flush_interval != 0 && job->done % job->options.flush_interval == 0)
      status = co_await job->node->flush();
    if (status != IoStatus::kOk) job->status = status;
  }
  if (--job->workers == 0) job->ended->wake_all();
}

}  // namespace

Task<Result<double>> bench(Node* node, BenchOptions options) {
  if (options.size == 0 || options.offset > node->size() || node->size() - options.offset < options.size)
    co_return fail("'{}' is too small for requests of {} bytes", node->name(), options.size);
  if (options.step == 0) options.step = options.size;
  WaitList ended{node->executor()};
  BenchJob job{node, options, &ended};
  job.random = options.seed * 0x9e3779b97f4a7c15 | 1;
  const Nanoseconds begin = node->executor().now();
  job.workers = std::clamp<u64>(options.depth, 1, 4096);
  for (u64 i = job.workers; i != 0; --i) node->executor().spawn(bench_worker(&job));
  if (job.workers != 0) co_await ended.wait();
  if (job.status != IoStatus::kOk) co_return std::unexpected(failed(*node, "benching", job.status));
  co_return static_cast<double>(node->executor().now() - begin) * 1e-9;
}

}  // namespace bulkhead::block::tools
