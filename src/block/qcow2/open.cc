// Opening an image: header, tables, children.
#include <algorithm>
#include <charconv>
#include <filesystem>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {

constexpr u64 kReadAtOnce = 4096;

Result<u64> number_option(const OpenRequest& request, const char* name, u64 otherwise) {
  const auto found = request.options.find(name);
  if (found == request.options.end()) return otherwise;
  u64 value = 0;
  const auto& text = found->second;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc{} || end.ptr != text.data() + text.size())
    return fail("disk '{}': {}={} is not a number of bytes", request.path, name, text);
  return value;
}

bool option_is(const OpenRequest& request, const char* name, std::string_view value) {
  const auto found = request.options.find(name);
  return found != request.options.end() && found->second == value;
}

Task<Result<Header>> read_header(Node* file) {
  AlignedMemory head{std::min<u64>(kReadAtOnce, file->size())};
  if (!head) co_return fail("no memory");
  IoStatus status = co_await file->read_bytes(0, head.bytes());
  if (status != IoStatus::kOk) co_return fail("{}", text_of(status));
  BH_CO_ASSIGN(const u64 cluster, header_bytes(head.bytes()));
  AlignedMemory whole{std::min(cluster, file->size())};
  if (!whole) co_return fail("no memory");
  status = co_await file->read_bytes(0, whole.bytes());
  if (status != IoStatus::kOk) co_return fail("{}", text_of(status));
  co_return parse_header(whole.bytes());
}

}  // namespace

// Relative names are relative to the image's folder [qcow2 "Backing files"]; "file:" may stand before.
std::string child_path(const std::string& image, std::string name) {
  if (name.starts_with("file:")) name.erase(0, 5);
  const std::filesystem::path path{name};
  return path.is_absolute() ? name : (std::filesystem::path{image}.parent_path() / path).string();
}

Qcow2Node::Qcow2Node(Executor& executor, std::string name, DiskAccess access, NodePtr file, Header header,
                     Qcow2Options options)
    : Node{executor, std::move(name), access},
      file_{file.get()},
      data_{file.get()},
      header_{std::move(header)},
      layout_{Layout::of(header_)},
      options_{options},
      l2_{*file_, *this, layout_.slice_bytes, options.l2_cache_bytes},
      refcounts_{*file_,
                 header_,
                 {[this] { return sync(); }, [this] { return write_header(); },
                  [this](u64 offset, u64 bytes) { return overlaps_metadata(offset, bytes); },
                  [this](u64 offset) { note_metadata(offset); }, [this] { note_all_metadata(); }}},
      locks_{executor},
      allocating_{executor},
      flushing_{executor} {
  add_child(ChildRole::kFile, std::move(file));
  set_size(header_.size);
}

NodeLimits Qcow2Node::limits() const {
  NodeLimits limits;
  limits.optimal_transfer = static_cast<u32>(layout_.cluster());
  if (header_.encrypted()) limits.request_alignment = SectorCipher::kSector;
  limits.discard_alignment = static_cast<u32>(layout_.subcluster());
  return limits;
}

Task<IoStatus> Qcow2Node::sync() {
  if (options_.no_sync) co_return IoStatus::kOk;
  co_return co_await file().flush();
}

Task<IoStatus> Qcow2Node::write_header() {
  auto bytes = serialize_header(header_);
  if (!bytes) {
    note_error(bytes.error().message);
    co_return IoStatus::kUnsupported;
  }
  co_return co_await file().write_bytes(0, *bytes);
}

Task<Result<void>> Qcow2Node::load() {
  auto l1 = co_await load_l1(header_.l1_offset, header_.l1_size);
  if (!l1) co_return fail("its L1 table: {}", text_of(l1.error()));
  l1_ = std::move(*l1);
  const IoStatus status = co_await refcounts_.load_table();
  if (status != IoStatus::kOk) co_return fail("its refcount table: {}", text_of(status));
  BH_CO_TRY(co_await load_snapshots());
  BH_CO_TRY(co_await load_bitmaps());
  note_all_metadata();
  fresh_from_ = align_up(file().size(), layout_.cluster());
  if (file().driver() != "file") fresh_from_ = ~u64{0};  // a device's bytes are not zeroes
  co_return Result<void>{};
}

Task<Result<void>> Qcow2Node::open_children(Opener* opener, OpenRequest request) {
  if (header_.external_data()) {
    OpenRequest below = request;
    const auto named = request.options.find("data-file");
    const std::string name = named != request.options.end() ? named->second : header_.data_file;
    if (name.empty()) co_return fail("it keeps its data in a file that it does not name; give data-file=FILE");
    below.path = child_path(request.path, name);
    BH_CO_ASSIGN(auto data, opener->open_file(below));
    data_ = data.get();
    add_child(ChildRole::kData, std::move(data));
  }
  if (header_.backing_file.empty() || request.no_backing) co_return Result<void>{};
  OpenRequest below;
  below.path = child_path(request.path, header_.backing_file);
  below.format = header_.backing_format;
  below.access = DiskAccess::kReadOnly;
  below.direct = request.direct;
  below.lock = request.lock;
  below.ancestors = request.ancestors;
  for (const auto& [name, value] : request.options)
    if (name.starts_with("backing.")) below.options[name.substr(8)] = value;
  // One key for the whole chain below, where no other is given.
  if (const auto key = request.options.find("backing.key-file"); key != request.options.end())
    below.options.try_emplace("backing.key-file", key->second);
  // Without a format in the header its first bytes decide. It is nobody's raw disk: it stands below us, read-only. But
  // a chain made over a guest's raw disk would follow what the guest wrote there, so only an image without a backing
  // image of its own and without a data file may be found so.
  const bool guessed = below.format.empty();
  BH_CO_ASSIGN(NodePtr backing, co_await opener->open(std::move(below)));
  if (guessed && backing->children().size() > 1)
    co_return fail(
        "its backing file '{}' names further files, and no format is given for it; set one: bulkhead disk "
        "rebase -u -F qcow2",
        header_.backing_file);
  add_child(ChildRole::kBacking, std::move(backing));
  co_return Result<void>{};
}

Task<Result<void>> Qcow2Node::make_ready_for_writing() {
  if ((header_.incompatible & spec::kCorrupt) != 0)
    co_return fail("it is marked as corrupt; it may be read (ro), or mended: bulkhead disk check --repair");
  if ((header_.incompatible & spec::kDirty) != 0) {
    const auto checked = co_await check(Repair::kAll);
    if (!checked) co_return fail("it was not closed, and mending it failed: {}", text_of(checked.error()));
    if (checked->corruptions > checked->corruptions_fixed) co_return fail("it was not closed, and cannot be mended");
  }
  // Programs clear the bits of what they do not keep consistent [qcow2 "Header", autoclear_features].
  const u64 kept = header_.autoclear & (spec::kBitmapsConsistent | spec::kRawExternalData);
  if (kept != header_.autoclear) {
    header_.autoclear = kept;
    const IoStatus status = co_await write_header();
    if (status != IoStatus::kOk) co_return fail("writing its header: {}", text_of(status));
  }
  co_return co_await begin_tracking();
}

Task<Result<void>> Qcow2Node::look_at_snapshot(std::string name) {
  const Snapshot* const found = find_snapshot(name);
  if (found == nullptr) co_return fail("it has no snapshot '{}'", name);
  if (!read_only()) co_return fail("a snapshot is for reading; open it read-only");
  auto l1 = co_await load_l1(found->l1_offset, found->l1_size);
  if (!l1) co_return fail("a snapshot's L1 table: {}", text_of(l1.error()));
  l1_ = std::move(*l1);
  set_size(found->disk_size);
  co_return Result<void>{};
}

Task<Result<NodePtr>> Qcow2Node::open(Opener& opener, NodePtr file, OpenRequest request) {
  auto header = co_await read_header(file.get());
  if (!header) co_return fail("cannot open qcow2 image '{}': {}", request.path, header.error().message);
  Qcow2Options options;
  BH_CO_ASSIGN(options.l2_cache_bytes, number_option(request, "l2-cache-size", options.l2_cache_bytes));
  options.no_sync = option_is(request, "sync", "off");
  options.as_it_is = option_is(request, "check", "on");
  const std::shared_ptr<Qcow2Node> node{
      new Qcow2Node{opener.executor(), request.path, request.access, std::move(file), std::move(*header), options}};
  Result<void> done = co_await node->load();
  if (done) done = co_await node->open_children(&opener, request);
  if (done && node->header_.encrypted()) done = co_await node->unlock(request);
  const auto then = request.options.find("snapshot");
  if (done && then != request.options.end()) done = co_await node->look_at_snapshot(then->second);
  if (done && request.access == DiskAccess::kReadWrite && !options.as_it_is)
    done = co_await node->make_ready_for_writing();
  if (!done) co_return fail("cannot open qcow2 image '{}': {}", request.path, done.error().message);
  node->ready_ = true;
  co_return NodePtr{node};
}

Task<Result<void>> Qcow2Node::change_backing(std::string file, std::string format) {
  // What it says without the old one is on disk before it stands without it.
  const IoStatus tables = co_await write_tables(true);
  if (tables != IoStatus::kOk) co_return fail("writing the tables of '{}': {}", name(), text_of(tables));
  Header before = header_;
  header_.backing_file = std::move(file);
  header_.backing_format = std::move(format);
  IoStatus status = co_await write_header();
  if (status == IoStatus::kOk) status = co_await sync();
  if (status == IoStatus::kOk) co_return Result<void>{};
  header_ = std::move(before);
  co_return fail("cannot change the backing file of '{}': {}", name(),
                 status == IoStatus::kUnsupported ? last_error() : std::string{text_of(status)});
}

Task<Result<void>> Qcow2Node::reopen(DiskAccess access) {
  if ((access == DiskAccess::kReadOnly) == read_only()) co_return Result<void>{};
  Result<void> done;
  if (access == DiskAccess::kReadOnly) {
    const IoStatus status = co_await do_close();
    if (status != IoStatus::kOk) co_return fail("writing the tables of '{}': {}", name(), text_of(status));
  } else {
    BH_CO_TRY(co_await file().reopen(access));
    if (data_ != file_) done = co_await data().reopen(access);
    set_access(access);
    if (done) done = co_await make_ready_for_writing();
    if (done) co_return Result<void>{};
    done = fail("cannot write to qcow2 image '{}': {}", name(), done.error().message);
  }
  set_access(DiskAccess::kReadOnly);
  const Result<void> below = co_await file().reopen(DiskAccess::kReadOnly);
  if (data_ != file_) co_await data().reopen(DiskAccess::kReadOnly);
  co_return done ? below : done;
}

const Format kFormat{"qcow2", &is_qcow2, &Qcow2Node::open};

}  // namespace bulkhead::block::qcow2
