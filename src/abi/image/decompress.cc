#include "abi/image/decompress.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>

#include "spec/linux_boot.h"

namespace bulkhead::abi {
namespace {
using In = std::span<const std::byte>;
using Out = std::span<std::byte>;

// How a decoder stopped: at the end of the content, or because `out` was full with more (or perhaps more) to come.
struct Unpacked {
  u64 size = 0;
  bool ended = false;
};

std::unexpected<Error> corrupt(Compression kind, u64 at) {
  return fail("its {} payload is corrupt or truncated (after {} unpacked bytes)", compression_name(kind), at);
}

// The zlib and bzip2 interfaces count in unsigned int: feed them slices of at most this.
constexpr u64 kSlice = 1u << 30;
unsigned slice(u64 left) { return static_cast<unsigned>(std::min(left, kSlice)); }

Result<Unpacked> gunzip(In in, Out out) {
  z_stream stream{};
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  if (inflateInit2(&stream, kGzipOnly) != Z_OK) return fail("not enough host memory to unpack gzip");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard{&stream, inflateEnd};
  u64 taken = 0, made = 0;
  for (int status = Z_OK; status == Z_OK && made < out.size();) {
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data() + taken));
    const unsigned offered = stream.avail_in = slice(in.size() - taken);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + made);
    const unsigned room = stream.avail_out = slice(out.size() - made);
    status = inflate(&stream, Z_NO_FLUSH);
    taken += offered - stream.avail_in;
    made += room - stream.avail_out;
    if (status == Z_STREAM_END) return Unpacked{made, true};
    if (status != Z_OK) return corrupt(Compression::kGzip, made);
  }
  // The content may end exactly here: let the decoder see the trailer, with room for a byte that must not come.
  Bytef extra;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data() + taken));
  stream.avail_in = slice(in.size() - taken);
  stream.next_out = &extra;
  stream.avail_out = 1;
  return Unpacked{made, inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 1};
}

Result<Unpacked> bunzip2(In in, Out out) {
  bz_stream stream{};
  if (BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK) return fail("not enough host memory to unpack bzip2");
  const std::unique_ptr<bz_stream, int (*)(bz_stream*)> guard{&stream, BZ2_bzDecompressEnd};
  u64 taken = 0, made = 0;
  std::array<char, 1> extra;  // room after the end, so that the end is seen
  while (true) {
    stream.next_in = reinterpret_cast<char*>(const_cast<std::byte*>(in.data() + taken));
    const unsigned offered = stream.avail_in = slice(in.size() - taken);
    const bool full = made == out.size();
    stream.next_out = full ? extra.data() : reinterpret_cast<char*>(out.data() + made);
    const unsigned room = stream.avail_out = full ? 1 : slice(out.size() - made);
    const int status = BZ2_bzDecompress(&stream);
    taken += offered - stream.avail_in;
    const unsigned written = room - stream.avail_out;
    if (full && written != 0) return Unpacked{made, false};
    made += written;
    if (status == BZ_STREAM_END) return Unpacked{made, true};
    if (status != BZ_OK || (written == 0 && offered == stream.avail_in)) return corrupt(Compression::kBzip2, made);
  }
}

Result<Unpacked> unlzma(Compression kind, In in, Out out) {
  constexpr u64 kMemoryLimit = 256_MiB;  // the kernel's own xz images need 33 MiB
  lzma_stream stream = LZMA_STREAM_INIT;
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> guard{&stream, lzma_end};
  const lzma_ret begun = kind == Compression::kXz ? lzma_stream_decoder(&stream, kMemoryLimit, 0)
                                                  : lzma_alone_decoder(&stream, kMemoryLimit);
  if (begun != LZMA_OK) return fail("not enough host memory to unpack {}", compression_name(kind));
  stream.next_in = reinterpret_cast<const u8*>(in.data());
  stream.avail_in = in.size();
  stream.next_out = reinterpret_cast<u8*>(out.data());
  stream.avail_out = out.size();
  lzma_ret status = LZMA_OK;
  while (status == LZMA_OK && stream.avail_out > 0) status = lzma_code(&stream, LZMA_FINISH);
  const u64 made = out.size() - stream.avail_out;
  if (status == LZMA_STREAM_END) return Unpacked{made, true};
  if (status == LZMA_MEMLIMIT_ERROR)
    return fail("its {} payload needs more than 256 MiB to unpack", compression_name(kind));
  if (status != LZMA_OK) return corrupt(kind, made);
  u8 extra;
  stream.next_out = &extra;
  stream.avail_out = 1;
  while (status == LZMA_OK && stream.avail_out == 1) status = lzma_code(&stream, LZMA_FINISH);
  return Unpacked{made, status == LZMA_STREAM_END && stream.avail_out == 1};
}

// A legacy frame: the magic, then blocks of 8 MiB (the last is shorter), each behind its packed size.
enum class Part : u8 { kWhole, kPrefix };

Result<Unpacked> unlz4(In in, Out out, Part part) {
  u64 made = 0;
  for (u64 taken = 4; taken < in.size();) {
    u32 packed = 0;
    if (in.size() - taken < sizeof packed) return corrupt(Compression::kLz4, made);
    std::memcpy(&packed, in.data() + taken, sizeof packed);
    taken += sizeof packed;
    if (packed == spec::linux_boot::kLz4LegacyMagic) continue;  // concatenated frames
    if (packed == 0 || packed > in.size() - taken || packed > LZ4_COMPRESSBOUND(spec::linux_boot::kLz4LegacyBlock))
      return corrupt(Compression::kLz4, made);
    const u64 room = std::min<u64>(out.size() - made, spec::linux_boot::kLz4LegacyBlock);
    const char* const from = reinterpret_cast<const char*>(in.data() + taken);
    char* const to = reinterpret_cast<char*>(out.data() + made);
    if (room == 0) return Unpacked{made, false};
    const int fit = static_cast<int>(room), length = static_cast<int>(packed);
    const int got = part == Part::kWhole ? LZ4_decompress_safe(from, to, length, fit)
                                         : LZ4_decompress_safe_partial(from, to, length, fit, fit);
    if (got <= 0) return corrupt(Compression::kLz4, made);
    made += static_cast<u64>(got);
    taken += packed;
  }
  return Unpacked{made, true};
}

Result<Unpacked> unzstd_whole(In in, Out out) {
  // In one call: the window is then `out` itself, where streaming would allocate up to 128 MiB for it.
  const std::size_t got = ZSTD_decompress(out.data(), out.size(), in.data(), in.size());
  if (ZSTD_isError(got)) return fail("its zstd payload is corrupt or truncated ({})", ZSTD_getErrorName(got));
  return Unpacked{got, true};
}

Result<Unpacked> unzstd_prefix(In in, Out out) {
  const std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream{ZSTD_createDStream(), ZSTD_freeDStream};
  if (stream == nullptr) return fail("not enough host memory to unpack zstd");
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  ZSTD_outBuffer output{out.data(), out.size(), 0};
  while (output.pos < output.size) {
    const std::size_t before_in = input.pos, before_out = output.pos;
    const std::size_t left = ZSTD_decompressStream(stream.get(), &output, &input);
    if (ZSTD_isError(left)) return fail("its zstd payload is corrupt ({})", ZSTD_getErrorName(left));
    if (left == 0) return Unpacked{output.pos, true};
    if (input.pos == before_in && output.pos == before_out) return corrupt(Compression::kZstd, output.pos);
  }
  return Unpacked{output.pos, false};
}

Result<Unpacked> copy(In in, Out out) {
  const u64 size = std::min(in.size(), out.size());
  std::copy_n(in.begin(), size, out.begin());
  return Unpacked{size, size == in.size()};
}

Result<Unpacked> unpack(Compression kind, In in, Out out, Part part) {
  switch (kind) {
    case Compression::kNone:
      return copy(in, out);
    case Compression::kGzip:
      return gunzip(in, out);
    case Compression::kXz:
    case Compression::kLzma:
      return unlzma(kind, in, out);
    case Compression::kLz4:
      return unlz4(in, out, part);
    case Compression::kBzip2:
      return bunzip2(in, out);
    case Compression::kZstd:
      return part == Part::kWhole ? unzstd_whole(in, out) : unzstd_prefix(in, out);
    default:
      return fail("its payload is compressed with {}, which is not supported", compression_name(kind));
  }
}

struct Magic {
  Compression kind;
  std::string_view bytes;
};
using namespace std::string_view_literals;
constexpr std::array kMagics = {
    Magic{Compression::kGzip, "\x1f\x8b"sv},
    Magic{Compression::kXz,
          "\xfd"
          "7zXZ\0"sv},
    Magic{Compression::kLz4, "\x02\x21\x4c\x18"sv},
    Magic{Compression::kZstd, "\x28\xb5\x2f\xfd"sv},
    Magic{Compression::kBzip2, "BZh"sv},
    Magic{Compression::kLzo, "\x89LZO"sv},
    Magic{Compression::kLzma, "\x5d\0\0"sv},
    Magic{Compression::kNone,
          "\x7f"
          "ELF"sv},
};
}  // namespace

std::string_view compression_name(Compression kind) {
  constexpr std::array<std::string_view, 8> kNames = {"uncompressed", "gzip", "xz",    "lzma",
                                                      "lz4",          "zstd", "bzip2", "lzo"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::optional<Compression> detect_compression(std::span<const std::byte> data) {
  const std::string_view text{reinterpret_cast<const char*>(data.data()), data.size()};
  for (const Magic& magic : kMagics)
    if (text.starts_with(magic.bytes)) return magic.kind;
  return std::nullopt;
}

Result<void> decompress(Compression kind, In in, Out out) {
  BH_ASSIGN(const Unpacked result, unpack(kind, in, out, Part::kWhole));
  if (result.size == out.size() && result.ended) return {};
  return fail("its {} payload unpacks to {}{} bytes, not to the {} that it announces", compression_name(kind),
              result.ended ? "" : "more than ", result.size, out.size());
}

Result<u64> decompress_prefix(Compression kind, In in, Out out) {
  BH_ASSIGN(const Unpacked result, unpack(kind, in, out, Part::kPrefix));
  return result.size;
}

}  // namespace bulkhead::abi
