// What is done with any bytes that claim to be an image: all that can be done with images. For fuzzing, and for tests
// that change a few bytes of good ones. Nothing but refusals and statuses may come of it, in bounded time and memory.
#pragma once
#include <algorithm>
#include <cstring>

#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

// A file in memory that grows, but not for ever.
class SmallFile final : public Node {
 public:
  static constexpr u64 kMost = 4_MiB;
  SmallFile(Executor& executor, std::vector<std::byte> content)
      : Node{executor, "small", DiskAccess::kReadWrite}, bytes{std::move(content)} {
    set_size(bytes.size());
  }
  std::string_view driver() const override { return "file"; }
  bool supports_discard() const override { return true; }
  std::vector<std::byte> bytes;

 protected:
  bool growable() const override { return true; }
  Task<IoStatus> do_read(u64 offset, Buffers data) override {
    const u64 length = total_bytes(data);
    const u64 there = offset >= bytes.size() ? 0 : std::min<u64>(length, bytes.size() - offset);
    if (there != 0) {
      const BufferSlice part{data, 0, there};
      copy_in(part, 0, std::span{bytes}.subspan(offset, there));
    }
    fill_zero(data, there, length - there);
    co_return IoStatus::kOk;
  }
  Task<IoStatus> do_write(u64 offset, Buffers data, WriteFlags) override {
    const u64 end = offset + total_bytes(data);
    if (end > kMost) co_return IoStatus::kNoSpace;
    if (end > bytes.size()) bytes.resize(end);
    set_size(bytes.size());
    copy_out(data, 0, std::span{bytes}.subspan(offset, end - offset));
    co_return IoStatus::kOk;
  }
  Task<IoStatus> do_flush() override { co_return IoStatus::kOk; }
  Task<IoStatus> do_write_zeroes(u64 offset, u64 length, WriteFlags) override {
    if (offset + length > kMost) co_return IoStatus::kNoSpace;
    if (offset + length > bytes.size()) bytes.resize(offset + length);
    set_size(bytes.size());
    std::memset(&bytes[offset], 0, length);
    co_return IoStatus::kOk;
  }
  Task<IoStatus> do_truncate(u64 size, Preallocation) override {
    if (size > kMost) co_return IoStatus::kNoSpace;
    bytes.resize(size);
    set_size(size);
    co_return IoStatus::kOk;
  }
};

inline Task<void> look_everywhere(Qcow2Node* image) {
  std::vector<std::byte> memory(100 * 1024);
  const u64 size = image->size();
  for (const u64 at : {u64{0}, size / 3, size / 2, size - std::min<u64>(size, 70'000)}) {
    const u64 length = std::min<u64>(memory.size(), size - std::min(at, size));
    co_await image->read_bytes(at, std::span{memory}.first(length));
    for (u64 done = 0, tries = 0; done < length && tries < 64; ++tries) {
      const auto status = co_await image->block_status(at + done, length - done);
      if (!status) break;
      BH_ASSERT(status->length != 0);
      done += status->length;
    }
  }
  std::vector<std::string> names;
  for (const Bitmap& bitmap : image->bitmaps()) names.push_back(bitmap.name);
  for (const std::string& name : names) co_await image->read_bitmap(name);
  co_await image->check(Repair::kNone);
}

inline Task<void> change_everything(Qcow2Node* image) {
  const std::vector<std::byte> data(9000, std::byte{0x5a});
  const u64 size = image->size();
  for (const u64 at : {u64{0}, size / 3, size - std::min<u64>(size, 9000)}) {
    const auto part = std::span{data}.first(std::min<u64>(data.size(), size - at));
    co_await image->write_bytes(at, part);
    co_await image->write_zeroes(at, part.size() / 2, WriteFlags::kMayUnmap);
    co_await image->discard(at, part.size());
    co_await image->flush();
  }
  std::vector<std::string> snapshots, bitmaps;
  for (const Snapshot& one : image->snapshots()) snapshots.push_back(one.id);
  for (const Bitmap& one : image->bitmaps()) bitmaps.push_back(one.name);
  co_await image->create_snapshot("ground", 1, 2);
  co_await image->write_bytes(size / 2, std::span{data}.first(std::min<u64>(data.size(), size - size / 2)));
  if (!snapshots.empty()) {
    co_await image->apply_snapshot(snapshots[0]);
    co_await image->delete_snapshot(snapshots[0]);
  }
  if (!bitmaps.empty()) {
    co_await image->clear_bitmap(bitmaps[0]);
    co_await image->remove_bitmap(bitmaps[0]);
  }
  co_await image->truncate(align_up(std::min(image->size(), u64{1} << 40) + 100'000, 512));
  co_await image->check(Repair::kAll);
  co_await image->write_bytes(0, std::span{data}.first(std::min<u64>(data.size(), image->size())));
  co_await image->change_backing("somewhere", "raw");
  co_await image->make_empty();
}

// True: it was taken for an image.
inline bool grind_image(Executor& executor, const std::vector<std::byte>& bytes) {
  bool taken = false;
  Opener opener{executor, {}};
  for (const bool writes : {false, true}) {
    OpenRequest request{.path = "/nonexistent/image", .format = "qcow2"};
    request.access = writes ? DiskAccess::kReadWrite : DiskAccess::kReadOnly;
    request.no_backing = true;
    request.options["data-file"] = "/nonexistent/data";
    auto opened = executor.run(Qcow2Node::open(opener, std::make_shared<SmallFile>(executor, bytes), request));
    if (!opened) {
      BH_ASSERT(!opened.error().message.empty() && opened.error().message.find('\n') == std::string::npos);
      continue;
    }
    taken = true;
    auto* const image = static_cast<Qcow2Node*>(opened->get());
    executor.run(writes ? change_everything(image) : look_everywhere(image));
    executor.run(close_graph(*opened));
    executor.run([&] { opened->reset(); });
  }
  return taken;
}

}  // namespace bulkhead::block::qcow2
