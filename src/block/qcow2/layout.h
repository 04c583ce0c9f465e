// What L2 entries say, in one shape for both kinds of them [qcow2 "Cluster mapping"]. Pure.
#pragma once
#include <algorithm>

#include "base/big_endian.h"
#include "base/bits.h"
#include "block/qcow2/header.h"

namespace bulkhead::block::qcow2 {

enum class ExtentKind : u8 { kUnallocated, kZero, kData, kCompressed, kBad };

struct L2Entry {
  u64 entry = 0;
  u64 bitmap = 0;  // extended entries': allocated in the low half, zero in the high one
  bool operator==(const L2Entry&) const = default;
};

// A run of the disk within one L2 slice that is of one kind.
struct Extent {
  ExtentKind kind = ExtentKind::kUnallocated;
  bool copied = false;    // its host cluster is ours alone: it may be written in place
  bool has_host = false;  // data, or a zero cluster that keeps its space
  u64 host = 0;           // of its first byte, if has_host
  u64 length = 0;         // bytes
  u64 descriptor = 0;     // of a compressed cluster
};

struct CompressedPlace {
  u64 offset = 0, bytes = 0;  // in the file; `bytes` is where it ends at the latest
};

// The geometry of one image, and entries read by it.
struct Layout {
  unsigned cluster_bits = 16, l2_bits = 13, entry_bits = 3;  // entry_bits: of its size in bytes
  bool extended = false, external = false, has_zero_flag = true;
  u64 slice_bytes = 0;  // how much of an L2 table is cached at a time

  static Layout of(const Header& header) {
    return {header.cluster_bits,
            header.l2_bits(),
            header.l2_entry_bits(),
            header.extended_l2(),
            header.external_data(),
            header.version >= 3,
            std::min<u64>(header.cluster_size(), 64_KiB)};
  }
  u64 cluster() const { return u64{1} << cluster_bits; }
  u64 subcluster() const { return extended ? cluster() / spec::qcow2::kSubclusters : cluster(); }
  u64 slice_entries() const { return slice_bytes >> entry_bits; }
  u64 slice_span() const { return slice_entries() << cluster_bits; }  // bytes of the disk by one slice
  u64 l1_index(u64 offset) const { return offset >> (cluster_bits + l2_bits); }
  u64 l2_index(u64 offset) const { return (offset >> cluster_bits) & ((u64{1} << l2_bits) - 1); }
  // Where the slice for `offset` begins in its L2 table, bytes.
  u64 slice_at(u64 offset) const { return align_down(l2_index(offset) << entry_bits, slice_bytes); }
  u64 in_slice(u64 offset) const { return l2_index(offset) & (slice_entries() - 1); }

  L2Entry load(const std::byte* slice, u64 index) const {
    const std::byte* const at = slice + (index << entry_bits);
    return {load_be<u64>(at), extended ? load_be<u64>(at + 8) : 0};
  }
  void store(std::byte* slice, u64 index, const L2Entry& entry) const {
    std::byte* const at = slice + (index << entry_bits);
    store_be(at, entry.entry);
    if (extended) store_be(at + 8, entry.bitmap);
  }

  static bool compressed(const L2Entry& entry) { return (entry.entry & spec::qcow2::kCompressed) != 0; }
  static bool copied(const L2Entry& entry) { return (entry.entry & spec::qcow2::kCopied) != 0; }
  u64 host(const L2Entry& entry) const { return entry.entry & spec::qcow2::kOffsetMask; }
  // With external data, an offset of 0 is one if it is ours [qcow2 "Standard Cluster Descriptor"].
  bool has_host(const L2Entry& entry) const {
    return !compressed(entry) && (host(entry) != 0 || (external && copied(entry)));
  }
  ExtentKind kind(const L2Entry& entry, unsigned subcluster_index) const {
    if (compressed(entry)) return external ? ExtentKind::kBad : ExtentKind::kCompressed;
    if (has_host(entry) && !is_aligned(host(entry), cluster())) return ExtentKind::kBad;
    if (!extended) {
      if ((entry.entry & spec::qcow2::kZero) != 0 && has_zero_flag) return ExtentKind::kZero;
      return has_host(entry) ? ExtentKind::kData : ExtentKind::kUnallocated;
    }
    const bool allocated = bit(entry.bitmap, subcluster_index), zero = bit(entry.bitmap, 32 + subcluster_index);
    if (allocated && (zero || !has_host(entry))) return ExtentKind::kBad;
    if (zero) return ExtentKind::kZero;
    return allocated ? ExtentKind::kData : ExtentKind::kUnallocated;
  }

  CompressedPlace place(u64 descriptor) const {
    const unsigned x = 62 - (cluster_bits - 8);
    CompressedPlace out;
    out.offset = descriptor & ((u64{1} << x) - 1) & 0x00ffffffffffffff;
    const u64 sectors = bits(descriptor, 61, x);
    out.bytes = (sectors + 1) * 512 - (out.offset & 511);
    return out;
  }
  u64 descriptor(u64 offset, u64 bytes) const {
    const unsigned x = 62 - (cluster_bits - 8);
    const u64 sectors = ((offset + bytes - 1) >> 9) - (offset >> 9);
    return spec::qcow2::kCompressed | (sectors << x) | offset;
  }

  // The extent at `offset`, at most `length` bytes, within the slice.
  Extent extent(const std::byte* slice, u64 offset, u64 length) const {
    const u64 sub = subcluster(), end = std::min(offset + length, align_down(offset, slice_span()) + slice_span());
    Extent out;
    u64 at = offset;
    while (at < end) {
      const L2Entry entry = load(slice, in_slice(at));
      const auto index = static_cast<unsigned>((at & (cluster() - 1)) / sub);
      const ExtentKind found = kind(entry, index);
      const bool has = has_host(entry);
      const u64 where = has ? host(entry) + (at & (cluster() - 1)) : 0;
      if (at == offset) {
        out = {found, copied(entry), has, where, 0, entry.entry};
      } else if (found != out.kind || has != out.has_host || copied(entry) != out.copied ||
                 (has && where != out.host + (at - offset)) ||
                 (found == ExtentKind::kCompressed && is_aligned(at, cluster()))) {
        break;
      }
      at = std::min(end, align_down(at, sub) + sub);
    }
    out.length = at - offset;
    return out;
  }
};

}  // namespace bulkhead::block::qcow2
