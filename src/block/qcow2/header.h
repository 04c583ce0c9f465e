// The header of a qcow2 image as checked values. Pure: bytes in, values out, and back.
// What passes parse_header() is within the limits below, so nobody who uses it needs to judge it again.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/qcow2.h"

namespace bulkhead::block::qcow2 {

// Ours, against images that want our memory.
inline constexpr u64 kMaxL1Bytes = 32_MiB, kMaxRefcountTableBytes = 8_MiB;
inline constexpr u32 kMaxSnapshots = 65536, kMaxBitmaps = 65535;

struct FeatureName {
  spec::qcow2::FeatureType type;
  u8 bit = 0;
  std::string name;
};

// An extension that we do not know. Kept as it is.
struct Extension {
  u32 type = 0;
  std::vector<std::byte> data;
};

struct BitmapsExtension {
  u32 count = 0;
  u64 directory_size = 0, directory_offset = 0;  // bytes
};

// Where the LUKS header is.
struct EncryptionExtension {
  u64 offset = 0, length = 0;  // bytes
};
inline constexpr u64 kMaxEncryptionBytes = 64_MiB;

struct Header {
  u32 version = 3;
  u32 cluster_bits = 16;
  u64 size = 0;  // virtual, bytes
  u32 crypt_method = 0;
  u32 l1_size = 0;  // entries
  u64 l1_offset = 0;
  u64 refcount_table_offset = 0;
  u32 refcount_table_clusters = 0;
  u32 snapshot_count = 0;
  u64 snapshots_offset = 0;
  u64 incompatible = 0, compatible = 0, autoclear = 0;
  u32 refcount_order = 4;
  u32 header_length = spec::qcow2::kHeaderLengthCompression;  // on disk
  spec::qcow2::CompressionType compression = spec::qcow2::CompressionType::kDeflate;
  std::string backing_file, backing_format, data_file;
  std::optional<BitmapsExtension> bitmaps;
  std::optional<EncryptionExtension> encryption;
  std::vector<FeatureName> feature_names;
  std::vector<Extension> unknown;

  u64 cluster_size() const { return u64{1} << cluster_bits; }
  bool extended_l2() const { return (incompatible & spec::qcow2::kExtendedL2) != 0; }
  bool encrypted() const { return crypt_method != spec::qcow2::kNoCrypt; }
  bool external_data() const { return (incompatible & spec::qcow2::kExternalData) != 0; }
  unsigned l2_entry_bits() const { return extended_l2() ? 4 : 3; }           // of its size in bytes
  unsigned l2_bits() const { return cluster_bits - l2_entry_bits(); }        // entries in an L2 table
  u64 bytes_per_l1() const { return u64{1} << (cluster_bits + l2_bits()); }  // of the disk, by one L1 entry
  u64 l1_entries_for(u64 bytes) const {
    return (bytes >> (cluster_bits + l2_bits())) + ((bytes & (bytes_per_l1() - 1)) != 0 ? 1 : 0);
  }
};

// True if these first bytes of a file are a qcow2 image.
bool is_qcow2(std::span<const std::byte> head);
// How many first bytes of the file parse_header() wants: one cluster. `head`: 512 bytes or more, or the whole file.
Result<u64> header_bytes(std::span<const std::byte> head);
// `cluster`: the first cluster, or the whole file if that is shorter. Errors: what is wrong, without the file's name.
Result<Header> parse_header(std::span<const std::byte> cluster);
// The first cluster's beginning. Errors: it does not fit into a cluster.
Result<std::vector<std::byte>> serialize_header(const Header& header);

}  // namespace bulkhead::block::qcow2
