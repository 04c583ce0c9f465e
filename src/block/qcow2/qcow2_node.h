// A qcow2 image, version 2 or 3 [qcow2].
// Fidelity: thin allocation, backing images, zero clusters, compression (deflate, zstd), refcounts of every width, lazy
// refcounts, extended L2 entries, external data file, internal snapshots, resize, LUKS. See docs/disks.md.
//
// What is on disk at any moment opens again with no worse than leaked clusters. Changes go in this order, with a sync
// between: data and refcounts that grow; L2 tables; L1 entries; refcounts that shrink. flush() does it all, and a full
// cache of L2 tables does it earlier.
//
// Requests hold the part of the disk that they touch: shared where no entry changes, alone and by whole clusters where
// one does. So no cluster is let go, and none given a new use, while a request uses it. Allocation is under a lock of
// its own, held for the tables and not for the data.
#pragma once
#include <functional>
#include <map>

#include "block/crypto/sector_cipher.h"
#include "block/open/opener.h"
#include "block/qcow2/layout.h"
#include "block/qcow2/refcounts.h"

namespace bulkhead::block::qcow2 {

struct Snapshot {
  u64 l1_offset = 0;
  u32 l1_size = 0;  // entries
  std::string id, name;
  u32 seconds = 0, nanoseconds = 0;  // when, since 1970
  u64 vm_clock = 0, vm_state_size = 0, disk_size = 0, icount = ~u64{0};
  std::vector<std::byte> extra;  // what is behind the fields above, as it was
};

struct Bitmap {
  std::string name;
  u64 table_offset = 0;
  u32 table_size = 0;  // entries
  u32 flags = 0;
  u8 type = spec::qcow2::kDirtyTrackingBitmap, granularity_bits = 16;
  std::vector<std::byte> extra;
  bool in_use() const { return (flags & spec::qcow2::kBitmapInUse) != 0; }
};

struct CheckResult {
  u64 corruptions = 0, leaks = 0, corruptions_fixed = 0, leaks_fixed = 0, errors = 0;
  u64 allocated_clusters = 0, total_clusters = 0, compressed_clusters = 0, fragmented_clusters = 0;
  u64 image_end = 0;                  // bytes
  std::vector<std::string> messages;  // the first hundred
};

enum class Repair : u8 { kNone, kLeaks, kAll };

struct Qcow2Options {
  u64 l2_cache_bytes = 32_MiB;
  bool no_sync = false;   // for what is thrown away if it is not finished: no ordering on stable storage
  bool as_it_is = false;  // opened for a check: dirty or corrupt images too, nothing is repaired first
};

class Qcow2Node final : public Node, private TableOwner {
 public:
  // As Format::open. Options in request.options: "data-file", "l2-cache-size", "sync" (off),
  // "key-file", "check" (on), "snapshot" (a name: the disk as it was then, read-only).
  static Task<Result<NodePtr>> open(Opener& opener, NodePtr file, OpenRequest request);

  std::string_view driver() const override { return "qcow2"; }
  bool supports_discard() const override { return !read_only(); }
  NodeLimits limits() const override;
  const Header& header() const { return header_; }
  const Layout& layout() const { return layout_; }

  // --- for tools; executor's thread
  // One whole cluster (the last may be cut at the disk's end), packed already. Nothing may be there yet.
  Task<IoStatus> write_compressed(u64 offset, std::span<const std::byte> packed);
  // A new name and format of the backing file in the header; the contents are the caller's affair.
  Task<Result<void>> change_backing(std::string file, std::string format);
  // Stands on `backing` from now on; the header is change_backing()'s. It stood on none.
  void adopt_backing(NodePtr backing) { add_child(ChildRole::kBacking, std::move(backing)); }
  Task<Result<void>> reopen(DiskAccess access) override;
  // Every cluster away: all is as in the backing image. Errors: with snapshots, or an external data file.
  Task<IoStatus> make_empty();
  // Gives every cluster of the disk its place.
  Task<IoStatus> preallocate_all(Preallocation how);
  // Compares all tables with the refcounts, and mends. Nothing else is in flight.
  Task<IoResult<CheckResult>> check(Repair repair);

  // --- snapshots; nothing else is in flight. Names or identities.
  const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  Task<Result<void>> create_snapshot(std::string name, u32 seconds, u32 nanoseconds);
  Task<Result<void>> apply_snapshot(std::string name);
  Task<Result<void>> delete_snapshot(std::string name);
  const Snapshot* find_snapshot(const std::string& name) const;

  // --- bitmaps; nothing else is in flight
  const std::vector<Bitmap>& bitmaps() const { return bitmaps_; }
  Task<Result<void>> add_bitmap(std::string name, u32 granularity, bool enabled);
  Task<Result<void>> remove_bitmap(std::string name);
  Task<Result<void>> clear_bitmap(std::string name);
  Task<Result<void>> enable_bitmap(std::string name, bool enabled);
  Task<Result<void>> merge_bitmap(std::string target, std::vector<bool> more, u32 granularity_bits);
  // --- a bitmap that records, while requests go on
  Result<void> judge_recording(const std::string& name) const;  // Errors: there is none such
  u64 recording_grain(const std::string& name) const;           // bytes; of one that judge_recording() likes
  // What it has recorded; it starts over.
  Result<std::vector<bool>> take_recorded(const std::string& name);
  void give_back_recorded(const std::string& name, const std::vector<bool>& bits);  // as if recorded since
  // One bit for each 2^granularity_bits bytes of the disk.
  Task<Result<std::vector<bool>>> read_bitmap(std::string name);

 protected:
  Task<IoStatus> do_read(u64 offset, Buffers data) override;
  Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags flags) override;
  Task<IoStatus> do_flush() override;
  Task<IoStatus> do_discard(u64 offset, u64 length) override;
  Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags flags) override;
  Task<IoResult<BlockStatus>> do_block_status(u64 offset, u64 length) override;
  Task<IoStatus> do_truncate(u64 size, Preallocation preallocation) override;
  Task<IoStatus> change_size(u64 size, Preallocation preallocation);
  Task<IoStatus> do_close() override;

 private:
  friend class Checker;
  struct Zeroing {
    bool discard, may_unmap, unchanged = false;
  };
  Qcow2Node(Executor& executor, std::string name, DiskAccess access, NodePtr file, Header header, Qcow2Options options);

  // open.cc
  Task<Result<void>> load();
  Task<Result<void>> open_children(Opener* opener, OpenRequest request);
  Task<Result<void>> make_ready_for_writing();
  Task<Result<void>> look_at_snapshot(std::string name);
  Task<IoStatus> write_header();
  Task<IoStatus> sync();

  // encrypt.cc: the guest's data, of `guest` on the disk at `host` in its file
  Task<Result<void>> unlock(OpenRequest request);
  Task<IoStatus> read_data(u64 guest, u64 host, Buffers data);
  Task<IoStatus> write_data(u64 guest, u64 host, Buffers data);
  Task<IoStatus> read_encrypted(u64 guest, u64 host, Buffers data);
  Task<IoStatus> write_encrypted(u64 guest, u64 host, Buffers data);
  using Recode = bool (SectorCipher::*)(u64 sector, std::span<std::byte> data);
  Task<bool> recode(Recode how, u64 guest, u64 host, std::span<std::byte> bytes);  // in place

  // read.cc
  Task<IoResult<Extent>> map(u64 offset, u64 length);
  bool map_now(u64 offset, u64 length, Extent* out);
  Task<IoStatus> read_parts(u64 offset, Buffers data, u64 length);
  Task<IoStatus> read_extent(u64 offset, const Extent* extent, Buffers data);
  Task<IoStatus> read_backing(u64 offset, Buffers data);
  Task<IoStatus> read_compressed(u64 descriptor, u64 within, Buffers data);
  bool judge(const Extent& extent, u64 offset);
  IoStatus corrupt(std::string what);

  // write.cc
  Task<IoResult<u64>> write_some(u64 offset, Buffers data, u64 skip, u64 length, bool unchanged);
  Task<IoResult<u64>> write_new(u64 offset, Buffers data, u64 skip, u64 length);
  Task<IoResult<Run>> allocate_data(u64 offset, u64 clusters);
  Task<IoStatus> write_with_edges(u64 offset, u64 length, u64 begin, u64 end, u64 host, Buffers data, u64 skip);
  bool edge_is_zero(const L2Entry& before, u64 begin) const;
  L2Entry written(const L2Entry& before, u64 host, u64 cluster, u64 begin, u64 end) const;
  bool whole_copy(const L2Entry& before) const;
  Task<IoResult<TablePin>> writable_slice(u64 offset);
  Task<IoStatus> new_l2_table(u64 index);
  IoStatus may_write(u64 host, u64 length);
  Task<IoStatus> mark_corrupt();
  Task<IoStatus> before_change();
  void replace(Table& slice, u64 offset, const L2Entry& before, const L2Entry& now);
  void release(const L2Entry& entry);
  void release(u64 cluster, u64 count) { released_.push_back({cluster, count}); }
  bool overlaps_metadata(u64 offset, u64 length) const;
  void note_metadata(u64 offset, u64 clusters = 1);
  void note_all_metadata();
  Task<IoResult<Run>> allocate(u64 clusters, bool exact);

  // zero.cc
  Task<IoStatus> zero_clusters(u64 offset, u64 length, Zeroing how);
  Task<IoStatus> zero_part(u64 offset, u64 length);
  Task<IoStatus> zero_in_slice(u64 offset, u64 length, Zeroing how);
  L2Entry zeroed(const L2Entry& entry, Zeroing how, u32 mask) const;

  // flush.cc
  Task<IoStatus> write_tables(bool finally);
  Task<IoStatus> write_l2_tables();
  Task<IoStatus> release_clusters(const std::vector<Run>* runs);
  Task<IoStatus> write_some_tables(TableCache& cache) override;

  // snapshot.cc
  Task<Result<void>> load_snapshots();
  Task<IoStatus> store_snapshots(std::vector<Snapshot> now);
  Task<IoStatus> take_snapshot(std::string name, u32 seconds, u32 nanoseconds);
  Task<IoStatus> go_back_to(Snapshot snapshot);
  Task<IoStatus> drop_snapshot(Snapshot snapshot);
  Task<IoStatus> count_l1(const std::vector<u64>* l1, int delta);
  Task<IoStatus> renew_copied();
  Task<IoStatus> uncount(IoStatus why);
  Task<IoResult<std::vector<u64>>> load_l1(u64 offset, u32 entries);
  Task<IoResult<u64>> store_table(const std::vector<std::byte>* table);
  Task<IoStatus> free_now(u64 offset, u64 bytes);

  // bitmap.cc
  Task<Result<void>> load_bitmaps();
  Task<Result<void>> store_bitmaps(std::vector<Bitmap> now);
  Task<Result<void>> store_bits(Bitmap* bitmap, const std::vector<bool>* bits);
  Task<Result<void>> free_bits(const Bitmap* bitmap);
  Task<Result<std::vector<bool>>> load_bits(const Bitmap* bitmap);
  Task<Result<void>> change_bitmap(std::string name, std::function<void(Bitmap*, std::vector<bool>*)> change);
  Task<Result<void>> begin_tracking();
  Task<Result<void>> begin_resizing(std::map<std::string, std::vector<bool>>* held);
  Task<Result<void>> end_resizing(std::map<std::string, std::vector<bool>>* held);
  Task<Result<void>> end_tracking();
  void track(u64 offset, u64 length);
  u64 bits_of(const Bitmap& bitmap) const;

  // resize.cc
  Task<IoStatus> grow_l1(u64 entries);
  Task<IoStatus> zero_tail(u64 from, u64 to);
  Task<IoStatus> preallocate(u64 from, u64 to, Preallocation how);

  Node& file() const { return *file_; }
  Node& data() const { return *data_; }
  Node* backing() const { return child(ChildRole::kBacking); }

  Node* file_;
  Node* data_;  // where clusters are: the file, or the external data file
  Header header_;
  const Layout layout_;
  const Qcow2Options options_;
  std::vector<u64> l1_;
  TableCache l2_;
  Refcounts refcounts_;
  RangeLock locks_;
  AsyncMutex allocating_, flushing_;
  std::vector<Snapshot> snapshots_;
  u64 snapshots_bytes_ = 0;  // of their table
  std::vector<Bitmap> bitmaps_;
  std::map<std::string, std::vector<bool>> tracked_;  // bitmaps that record, by name
  std::vector<u64> metadata_;                         // the clusters that hold tables, sorted
  std::vector<Run> released_;                         // (cluster, count): to be let go after the next flush
  u64 l1_dirty_begin_ = ~u64{0}, l1_dirty_end_ = 0;
  u64 fresh_from_ = 0;         // clusters from here on were never used: zeroes
  u64 packing_at_ = 0;         // where the next compressed cluster goes, in a cluster that has room; 0: nowhere
  u64 cached_descriptor_ = 0;  // of the compressed cluster in cached_
  AlignedMemory cached_;
  std::unique_ptr<SectorCipher> cipher_;  // null: not encrypted, or no key was given
  bool broken_ = false;                   // corruption was seen: nothing is written any more
  bool ready_ = false;
};

// Makes images. Any thread; blocks.
struct CreateOptions {
  u64 size = 0;  // bytes
  u32 version = 3, cluster_bits = 16, refcount_order = 4;
  bool lazy_refcounts = false, extended_l2 = false, raw_external = false;
  spec::qcow2::CompressionType compression = spec::qcow2::CompressionType::kDeflate;
  std::string backing_file, backing_format, data_file;
  std::vector<std::byte> luks_header;  // make_luks1(); empty: not encrypted
  Preallocation preallocation = Preallocation::kOff;
};
// Writes an empty image into a file that exists. Errors: options that do not go together.
Task<Result<void>> format_image(NodePtr file, CreateOptions options);

// All bytes of a key file are the passphrase. Blocks.
Result<std::string> read_key(const std::string& path);

// A child's name as a path: relative ones are relative to the image's folder.
std::string child_path(const std::string& image, std::string name);

extern const Format kFormat;

}  // namespace bulkhead::block::qcow2
