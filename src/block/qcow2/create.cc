// New images.
#include <algorithm>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {

Result<void> judge(const CreateOptions& options) {
  if (options.version != 2 && options.version != 3) return fail("compat is 0.10 or 1.1");
  if (options.cluster_bits < spec::kMinClusterBits || options.cluster_bits > spec::kMaxClusterBits)
    return fail("cluster_size is a power of two from 512 to 2M");
  if (options.refcount_order > spec::kMaxRefcountOrder) return fail("refcount_bits is a power of two from 1 to 64");
  if (options.version == 2 && options.refcount_order != 4) return fail("refcount_bits other than 16 needs compat=1.1");
  if (options.version == 2 && (options.lazy_refcounts || options.extended_l2 || !options.data_file.empty() ||
                               options.compression != spec::CompressionType::kDeflate))
    return fail("lazy_refcounts, extended_l2, data_file and compression_type=zstd need compat=1.1");
  if (options.extended_l2 && options.cluster_bits < spec::kMinExtendedClusterBits)
    return fail("extended_l2=on needs a cluster_size of 16k or more");
  if (options.raw_external && options.data_file.empty()) return fail("data_file_raw=on needs data_file=");
  if (options.raw_external && !options.backing_file.empty())
    return fail("a backing file and data_file_raw=on do not go together");
  if (!options.luks_header.empty() && options.preallocation != Preallocation::kOff)
    return fail("preallocation and encryption do not go together: what is preallocated would not read as zeroes");
  if (!options.luks_header.empty() && options.raw_external)
    return fail("data_file_raw=on and encryption do not go together");
  if (!is_aligned(options.size, kSectorSize)) return fail("a disk's size is a multiple of {} bytes", kSectorSize);
  if (options.preallocation != Preallocation::kOff && !options.backing_file.empty() && !options.extended_l2)
    return fail("preallocation with a backing file needs extended_l2=on");
  return {};
}

Header header_of(const CreateOptions& options) {
  Header header;
  header.version = options.version;
  header.cluster_bits = options.cluster_bits;
  header.size = options.size;
  header.refcount_order = options.refcount_order;
  header.compression = options.compression;
  header.backing_file = options.backing_file;
  header.backing_format = options.backing_format;
  header.data_file = options.data_file;
  if (options.extended_l2) header.incompatible |= spec::kExtendedL2;
  if (!options.data_file.empty()) header.incompatible |= spec::kExternalData;
  if (options.compression != spec::CompressionType::kDeflate) header.incompatible |= spec::kCompressionType;
  if (options.lazy_refcounts) header.compatible |= spec::kLazyRefcounts;
  if (options.raw_external) header.autoclear |= spec::kRawExternalData;
  if (!options.luks_header.empty()) header.crypt_method = spec::kLuksCrypt;
  return header;
}

}  // namespace

// The header, one refcount table of as many clusters as it needs, its blocks, the L1 table, and a LUKS header, in this
// order.
Task<Result<void>> format_image(NodePtr file, CreateOptions options) {
  BH_CO_TRY(judge(options));
  Header header = header_of(options);
  const u64 cluster = header.cluster_size(), l1_entries = header.l1_entries_for(options.size);
  if (l1_entries * 8 > kMaxL1Bytes)
    co_return fail("a disk of {} bytes is too large for clusters of {}; use larger ones", options.size, cluster);
  const u64 l1_clusters = std::max<u64>(1, align_up(l1_entries * 8, cluster) >> options.cluster_bits);
  const u64 luks_clusters = align_up(options.luks_header.size(), cluster) >> options.cluster_bits;
  const u64 per_block = (cluster * 8) >> options.refcount_order;
  u64 blocks = 1, table_clusters = 1, total = 0;
  while (true) {
    total = 1 + table_clusters + blocks + l1_clusters + luks_clusters;
    const u64 need = (total + per_block - 1) / per_block,
              need_table = align_up(need * 8, cluster) >> options.cluster_bits;
    if (need <= blocks && need_table <= table_clusters) break;
    blocks = std::max(blocks, need);
    table_clusters = std::max(table_clusters, need_table);
  }
  header.refcount_table_offset = cluster;
  header.refcount_table_clusters = static_cast<u32>(table_clusters);
  header.l1_offset = (1 + table_clusters + blocks) * cluster;
  header.l1_size = static_cast<u32>(l1_entries);
  const u64 luks_at = header.l1_offset + l1_clusters * cluster;
  if (luks_clusters != 0) header.encryption = EncryptionExtension{luks_at, options.luks_header.size()};
  BH_CO_ASSIGN(const std::vector<std::byte> head, serialize_header(header));
  AlignedMemory image{total * cluster};
  if (!image) co_return fail("no memory for a new image's tables");
  std::memset(image.data(), 0, image.size());
  std::memcpy(image.data(), head.data(), head.size());
  if (luks_clusters != 0) std::memcpy(image.data() + luks_at, options.luks_header.data(), options.luks_header.size());
  for (u64 i = 0; i < blocks; ++i) {
    const u64 at = (1 + table_clusters + i) * cluster;
    store_be(image.data() + cluster + i * 8, at);
    for (u64 k = i * per_block; k < std::min(total, (i + 1) * per_block); ++k)
      set_count(image.data() + at, options.refcount_order, k - i * per_block, 1);
  }
  const IoStatus status = co_await file->write_bytes(0, image.bytes());
  if (status != IoStatus::kOk) co_return fail("cannot write '{}': {}", file->name(), text_of(status));
  co_return Result<void>{};
}

}  // namespace bulkhead::block::qcow2
