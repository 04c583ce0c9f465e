#include "block/qcow2/compression.h"

#include <zlib.h>
#include <zstd.h>

namespace bulkhead::block::qcow2 {
namespace {

constexpr int kWindowBits =
    -12;  // raw deflate; readers give no more than 4 KiB of window [qcow2 "Compressed Clusters"]

z_stream stream_over(std::span<const std::byte> from, std::span<std::byte> to) {
  z_stream stream{};
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(from.data()));
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = reinterpret_cast<Bytef*>(to.data());
  stream.avail_out = static_cast<uInt>(to.size());
  return stream;
}

bool inflate_into(std::span<const std::byte> from, std::span<std::byte> to) {
  z_stream stream = stream_over(from, to);
  if (inflateInit2(&stream, kWindowBits) != Z_OK) return false;
  const int result = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  // Z_BUF_ERROR with a full output: the end mark is in what was cut off, or there is more than a cluster.
  return (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
}

u64 deflate_into(std::span<const std::byte> from, std::span<std::byte> to) {
  z_stream stream = stream_over(from, to);
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWindowBits, 9, Z_DEFAULT_STRATEGY) != Z_OK) return 0;
  const int result = deflate(&stream, Z_FINISH);
  deflateEnd(&stream);
  return result == Z_STREAM_END ? to.size() - stream.avail_out : 0;
}

bool zstd_into(std::span<const std::byte> from, std::span<std::byte> to) {
  ZSTD_DStream* const stream = ZSTD_createDStream();
  if (stream == nullptr) return false;
  ZSTD_inBuffer in{from.data(), from.size(), 0};
  ZSTD_outBuffer out{to.data(), to.size(), 0};
  // A cluster may be of several frames, and its end is not marked: until it is full or nothing moves.
  while (out.pos < out.size) {
    const std::size_t before = in.pos + out.pos, result = ZSTD_decompressStream(stream, &out, &in);
    if (ZSTD_isError(result) || in.pos + out.pos == before) break;
  }
  ZSTD_freeDStream(stream);
  return out.pos == out.size;
}

}  // namespace

bool unpack(spec::qcow2::CompressionType type, std::span<const std::byte> from, std::span<std::byte> to) {
  return type == spec::qcow2::CompressionType::kZstd ? zstd_into(from, to) : inflate_into(from, to);
}

u64 pack(spec::qcow2::CompressionType type, std::span<const std::byte> from, std::span<std::byte> to) {
  if (type == spec::qcow2::CompressionType::kDeflate) return deflate_into(from, to);
  const std::size_t size = ZSTD_compress(to.data(), to.size(), from.data(), from.size(), ZSTD_CLEVEL_DEFAULT);
  return ZSTD_isError(size) ? 0 : size;
}

}  // namespace bulkhead::block::qcow2
