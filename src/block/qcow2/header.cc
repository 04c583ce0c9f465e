#include "block/qcow2/header.h"

#include <algorithm>

#include "base/big_endian.h"
#include "base/bits.h"

namespace bulkhead::block::qcow2 {
namespace {

namespace spec = bulkhead::spec::qcow2;
namespace at = spec::header;

constexpr u64 kKnownIncompatible =
    spec::kDirty | spec::kCorrupt | spec::kExternalData | spec::kCompressionType | spec::kExtendedL2;

std::string text_of_bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// For messages: an image's text must not reach a terminal as it is.
std::string printable(std::string text) {
  std::ranges::replace_if(text, [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return text;
}

Result<void> judge_table(std::string_view what, u64 offset, u64 bytes, u64 most, u64 cluster) {
  if (bytes > most) return fail("its {} has {} bytes, at most {} are accepted", what, bytes, most);
  if (bytes != 0 && (!is_aligned(offset, cluster) || offset == 0 || offset > (u64{1} << 56)))
    return fail("its {} is said to be at byte {:#x}, where none can be", what, offset);
  return {};
}

std::string name_of(const Header& header, unsigned bit_index) {
  for (const FeatureName& feature : header.feature_names)
    if (feature.type == spec::FeatureType::kIncompatible && feature.bit == bit_index && !feature.name.empty())
      return fmt::format("'{}' (bit {})", printable(feature.name), bit_index);
  return fmt::format("bit {}, which has no name there", bit_index);
}

Result<void> judge_features(const Header& header) {
  std::string names;
  for (unsigned i = 0; i < 64; ++i)
    if (bit(header.incompatible & ~kKnownIncompatible, i)) names += (names.empty() ? "" : ", ") + name_of(header, i);
  if (!names.empty()) return fail("it uses features that this program does not know: {}", names);
  if (header.extended_l2() && header.cluster_bits < spec::kMinExtendedClusterBits)
    return fail("extended L2 entries need clusters of 16 KiB or more, it has {} bytes", header.cluster_size());
  const bool type_bit = (header.incompatible & spec::kCompressionType) != 0;
  if (type_bit != (header.compression != spec::CompressionType::kDeflate))
    return fail("its compression type {} and the feature bit of it do not agree",
                static_cast<unsigned>(header.compression));
  if (header.crypt_method > spec::kLuksCrypt)
    return fail("it is encrypted by method {}, which this program does not know", header.crypt_method);
  if (header.crypt_method == spec::kLuksCrypt && !header.encryption)
    return fail("it is encrypted, but has no LUKS header");
  return {};
}

Result<void> judge_tables(const Header& header) {
  const u64 cluster = header.cluster_size();
  BH_TRY(judge_table("L1 table", header.l1_offset, u64{header.l1_size} * 8, kMaxL1Bytes, cluster));
  BH_TRY(judge_table("refcount table", header.refcount_table_offset, header.refcount_table_clusters * cluster,
                     kMaxRefcountTableBytes, cluster));
  if (header.refcount_table_clusters == 0) return fail("it has no refcount table");
  if (header.snapshot_count > kMaxSnapshots) return fail("it has {} snapshots, too many", header.snapshot_count);
  BH_TRY(judge_table("snapshot table", header.snapshots_offset, header.snapshot_count, kMaxSnapshots, cluster));
  if (header.size > (u64{1} << 62)) return fail("its disk has {} bytes, too many", header.size);
  if (header.l1_entries_for(header.size) > header.l1_size)
    return fail("its L1 table has {} entries, too few for a disk of {} bytes", header.l1_size, header.size);
  return {};
}

Result<void> parse_feature_names(Header& header, std::span<const std::byte> data) {
  for (; data.size() >= spec::kFeatureNameSize; data = data.subspan(spec::kFeatureNameSize)) {
    const u8 type = static_cast<u8>(data[0]);
    if (type > 2) continue;
    std::string name = text_of_bytes(data.subspan(2, spec::kFeatureNameSize - 2));
    name.resize(std::min(name.size(), name.find('\0')));
    header.feature_names.push_back({static_cast<spec::FeatureType>(type), static_cast<u8>(data[1]), std::move(name)});
  }
  return {};
}

Result<void> parse_bitmaps(Header& header, std::span<const std::byte> data) {
  if (data.size() < 24) return fail("its bitmaps extension has {} bytes, not 24", data.size());
  BitmapsExtension out;
  out.count = load_be<u32>(data.data());
  out.directory_size = load_be<u64>(&data[8]);
  out.directory_offset = load_be<u64>(&data[16]);
  if (out.count == 0 || out.count > kMaxBitmaps) return fail("it says that it has {} bitmaps", out.count);
  BH_TRY(judge_table("bitmap directory", out.directory_offset, out.directory_size, u64{kMaxBitmaps} * 1024,
                     header.cluster_size()));
  header.bitmaps = out;
  return {};
}

Result<void> parse_encryption(Header& header, std::span<const std::byte> data) {
  if (data.size() != 16) return fail("its encryption extension has {} bytes, not 16", data.size());
  const EncryptionExtension out{load_be<u64>(data.data()), load_be<u64>(&data[8])};
  if (out.length == 0) return fail("its LUKS header is empty");
  BH_TRY(judge_table("LUKS header", out.offset, out.length, kMaxEncryptionBytes, header.cluster_size()));
  header.encryption = out;
  return {};
}

Result<void> parse_extension(Header& header, u32 type, std::span<const std::byte> data) {
  switch (type) {
    case spec::kExtensionBackingFormat:
      header.backing_format = text_of_bytes(data);
      return {};
    case spec::kExtensionDataFile:
      if (data.empty() || data.size() > spec::kMaxBackingName) return fail("its data file's name is of a wrong length");
      header.data_file = text_of_bytes(data);
      return {};
    case spec::kExtensionFeatureNames:
      return parse_feature_names(header, data);
    case spec::kExtensionEncryption:
      return parse_encryption(header, data);
    case spec::kExtensionBitmaps:
      // Of no meaning unless the autoclear bit says that nobody who did not know them has written since.
      if ((header.autoclear & spec::kBitmapsConsistent) == 0) return {};
      return parse_bitmaps(header, data);
    default:
      header.unknown.push_back({type, {data.begin(), data.end()}});
      return {};
  }
}

Result<void> parse_extensions(Header& header, std::span<const std::byte> cluster, u64 offset, u64 end) {
  while (offset + 8 <= end) {
    const u32 type = load_be<u32>(&cluster[offset]), length = load_be<u32>(&cluster[offset + 4]);
    offset += 8;
    if (type == spec::kExtensionEnd) return {};
    if (length > end - offset) return fail("its header extension {:#x} is longer than the header", type);
    BH_TRY(parse_extension(header, type, cluster.subspan(offset, length)));
    offset += align_up(length, 8);
    if (offset > end) break;
  }
  return {};
}

Result<void> parse_version_3(Header& header, std::span<const std::byte> cluster) {
  if (cluster.size() < spec::kHeaderLength3) return fail("its header is cut short");
  header.incompatible = load_be<u64>(&cluster[at::kIncompatible]);
  header.compatible = load_be<u64>(&cluster[at::kCompatible]);
  header.autoclear = load_be<u64>(&cluster[at::kAutoclear]);
  header.refcount_order = load_be<u32>(&cluster[at::kRefcountOrder]);
  header.header_length = load_be<u32>(&cluster[at::kHeaderLength]);
  if (header.refcount_order > spec::kMaxRefcountOrder)
    return fail("its refcounts have 2^{} bits, more than 64", header.refcount_order);
  if (header.header_length < spec::kHeaderLength3 || !is_aligned(header.header_length, 8) ||
      header.header_length > cluster.size())
    return fail("its header is said to have {} bytes", header.header_length);
  if (header.header_length > at::kCompression)
    header.compression = static_cast<spec::CompressionType>(cluster[at::kCompression]);
  if (header.compression > spec::CompressionType::kZstd)
    return fail("its compression type {} is unknown to this program", static_cast<unsigned>(header.compression));
  return {};
}

}  // namespace

bool is_qcow2(std::span<const std::byte> head) {
  if (head.size() < spec::kHeaderLength2 || load_be<u32>(head.data()) != spec::kMagic) return false;
  const u32 version = load_be<u32>(&head[at::kVersion]);
  return version == 2 || version == 3;
}

Result<u64> header_bytes(std::span<const std::byte> head) {
  if (head.size() < spec::kHeaderLength2 || load_be<u32>(head.data()) != spec::kMagic)
    return fail("it is not a qcow2 image");
  const u32 version = load_be<u32>(&head[at::kVersion]), bits = load_be<u32>(&head[at::kClusterBits]);
  if (version != 2 && version != 3) return fail("it is of version {}; 2 and 3 are known", version);
  if (bits < spec::kMinClusterBits || bits > spec::kMaxClusterBits)
    return fail("its clusters have 2^{} bytes; 2^9 to 2^21 are accepted", bits);
  return u64{1} << bits;
}

Result<Header> parse_header(std::span<const std::byte> cluster) {
  BH_ASSIGN(const u64 cluster_size, header_bytes(cluster));
  cluster = cluster.first(std::min<std::size_t>(cluster.size(), cluster_size));
  Header header;
  header.version = load_be<u32>(&cluster[at::kVersion]);
  header.cluster_bits = load_be<u32>(&cluster[at::kClusterBits]);
  header.size = load_be<u64>(&cluster[at::kSize]);
  header.crypt_method = load_be<u32>(&cluster[at::kCryptMethod]);
  header.l1_size = load_be<u32>(&cluster[at::kL1Size]);
  header.l1_offset = load_be<u64>(&cluster[at::kL1Offset]);
  header.refcount_table_offset = load_be<u64>(&cluster[at::kRefcountTableOffset]);
  header.refcount_table_clusters = load_be<u32>(&cluster[at::kRefcountTableClusters]);
  header.snapshot_count = load_be<u32>(&cluster[at::kSnapshotCount]);
  header.snapshots_offset = load_be<u64>(&cluster[at::kSnapshotsOffset]);
  header.header_length = spec::kHeaderLength2;
  if (header.version == 3) BH_TRY(parse_version_3(header, cluster));
  const u64 name_at = load_be<u64>(&cluster[at::kBackingOffset]);
  const u32 name_length = load_be<u32>(&cluster[at::kBackingLength]);
  u64 end = cluster.size();
  if (name_at != 0) {
    if (name_length > spec::kMaxBackingName || !range_within(name_at, name_length, cluster.size()))
      return fail("its backing file's name, {} bytes at {:#x}, is outside the header", name_length, name_at);
    header.backing_file = text_of_bytes(cluster.subspan(name_at, name_length));
    if (header.backing_file.find('\0') != std::string::npos) return fail("its backing file's name holds a zero byte");
    if (name_at >= header.header_length) end = name_at;
  }
  BH_TRY(parse_extensions(header, cluster, header.header_length, end));
  BH_TRY(judge_features(header));
  BH_TRY(judge_tables(header));
  if (header.external_data() && header.snapshot_count != 0)
    return fail("it has both snapshots and an external data file");
  return header;
}

namespace {

void put_extension(std::vector<std::byte>& out, u32 type, std::span<const std::byte> data) {
  const std::size_t begin = out.size();
  out.resize(begin + 8 + align_up(data.size(), 8));
  store_be<u32>(&out[begin], type);
  store_be<u32>(&out[begin + 4], static_cast<u32>(data.size()));
  if (!data.empty()) std::memcpy(&out[begin + 8], data.data(), data.size());
}

void put_text(std::vector<std::byte>& out, u32 type, const std::string& text) {
  if (!text.empty()) put_extension(out, type, std::as_bytes(std::span{text}));
}

// So that older programs can say what they do not know.
void put_feature_names(std::vector<std::byte>& out) {
  struct Row {
    u8 type, bit;
    const char* name;
  };
  constexpr Row kRows[] = {{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
                           {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
                           {2, 0, "bitmaps"},          {2, 1, "raw external data"}};
  std::vector<std::byte> data(std::size(kRows) * spec::kFeatureNameSize);
  std::byte* to = data.data();
  for (const Row& row : kRows) {
    to[0] = std::byte{row.type};
    to[1] = std::byte{row.bit};
    std::memcpy(to + 2, row.name, std::strlen(row.name));
    to += spec::kFeatureNameSize;
  }
  put_extension(out, spec::kExtensionFeatureNames, data);
}

void put_bitmaps(std::vector<std::byte>& out, const BitmapsExtension& bitmaps) {
  std::byte data[24]{};
  store_be<u32>(data, bitmaps.count);
  store_be<u64>(data + 8, bitmaps.directory_size);
  store_be<u64>(data + 16, bitmaps.directory_offset);
  put_extension(out, spec::kExtensionBitmaps, data);
}

}  // namespace

Result<std::vector<std::byte>> serialize_header(const Header& header) {
  const u32 length =
      header.version == 2 ? spec::kHeaderLength2 : std::max(header.header_length, spec::kHeaderLengthCompression);
  std::vector<std::byte> out(length);
  store_be<u32>(&out[at::kMagicAt], spec::kMagic);
  store_be<u32>(&out[at::kVersion], header.version);
  store_be<u32>(&out[at::kClusterBits], header.cluster_bits);
  store_be<u64>(&out[at::kSize], header.size);
  store_be<u32>(&out[at::kCryptMethod], header.crypt_method);
  store_be<u32>(&out[at::kL1Size], header.l1_size);
  store_be<u64>(&out[at::kL1Offset], header.l1_offset);
  store_be<u64>(&out[at::kRefcountTableOffset], header.refcount_table_offset);
  store_be<u32>(&out[at::kRefcountTableClusters], header.refcount_table_clusters);
  store_be<u32>(&out[at::kSnapshotCount], header.snapshot_count);
  store_be<u64>(&out[at::kSnapshotsOffset], header.snapshots_offset);
  if (header.version == 3) {
    store_be<u64>(&out[at::kIncompatible], header.incompatible);
    store_be<u64>(&out[at::kCompatible], header.compatible);
    store_be<u64>(&out[at::kAutoclear], header.autoclear);
    store_be<u32>(&out[at::kRefcountOrder], header.refcount_order);
    store_be<u32>(&out[at::kHeaderLength], length);
    out[at::kCompression] = static_cast<std::byte>(header.compression);
  }
  put_text(out, spec::kExtensionBackingFormat, header.backing_file.empty() ? "" : header.backing_format);
  put_text(out, spec::kExtensionDataFile, header.data_file);
  if (header.version == 3 && header.cluster_bits >= 11) put_feature_names(out);  // where there is room
  if (header.bitmaps) put_bitmaps(out, *header.bitmaps);
  if (header.encryption) {
    std::byte data[16];
    store_be<u64>(data, header.encryption->offset);
    store_be<u64>(data + 8, header.encryption->length);
    put_extension(out, spec::kExtensionEncryption, data);
  }
  for (const Extension& extension : header.unknown) put_extension(out, extension.type, extension.data);
  put_extension(out, spec::kExtensionEnd, {});
  if (!header.backing_file.empty()) {
    store_be<u64>(&out[at::kBackingOffset], out.size());
    store_be<u32>(&out[at::kBackingLength], static_cast<u32>(header.backing_file.size()));
    const auto name = std::as_bytes(std::span{header.backing_file});
    out.insert(out.end(), name.begin(), name.end());
  }
  if (out.size() > header.cluster_size())
    return fail(
        "the header with its names would have {} bytes, more than a cluster of {}; use shorter names or larger "
        "clusters",
        out.size(), header.cluster_size());
  return out;
}

}  // namespace bulkhead::block::qcow2
