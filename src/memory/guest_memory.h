// Guest-physical RAM: a memfd mapped once into the monitor, seen by the guest as one or two ranges.
// Everything in it may change under our hands at any moment (other vCPUs write it): copy in, then judge.
// Thread-safe after create(). The RAM's map never changes; extra pages of ours may come and go.
#pragma once
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/fd.h"
#include "base/ints.h"
#include "base/result.h"
#include "memory/large_page_thread.h"

namespace bulkhead {

struct RamRange {
  Gpa start;            // page aligned
  u64 size = 0;         // bytes, page aligned, > 0
  u64 file_offset = 0;  // where it lies in the memfd; set by create()
  bool contains(Gpa at, u64 length) const {
    return at >= start && length <= size && at.value - start.value <= size - length;
  }
};

// Told of writes that no vCPU made: an engine that keeps something derived from RAM (translated code) must hear of
// them.
class WriteObserver {
 public:
  virtual ~WriteObserver() = default;
  virtual void written(Gpa at, u64 length) = 0;  // after the bytes are there; any thread; must not block for long
  // An extra page came to the frame of `page`, outside of RAM, or has left it: GuestMemory::extra_at() tells. Any
  // thread.
  virtual void remapped(Gpa page) { (void)page; }
};

class GuestMemory {
 public:
  // `extra_pages`: pages of ours that may be placed in the guest's map later, see place_extra().
  // Errors: ranges unaligned or overlapping, or the host has no memory for them.
  static Result<GuestMemory> create(std::vector<RamRange> ranges, u64 extra_pages = 0);
  // RAM of `bytes` laid out as on a PC: below `hole_start`, the rest from 4 GiB up.
  static Result<GuestMemory> create_pc(u64 bytes, Gpa hole_start = {0xC0000000}, u64 extra_pages = 0);
  // The same memory, at the same place of ours, with its first range starting at `start`. Nobody is told of writes
  // through it, and it has no extra pages. Errors: the process has no file descriptor left.
  Result<GuestMemory> seen_from(Gpa start) const;
  GuestMemory(GuestMemory&&) noexcept;
  GuestMemory& operator=(GuestMemory&&) = delete;
  ~GuestMemory();

  int fd() const { return fd_.get(); }
  std::span<const RamRange> ranges() const { return ranges_; }
  u64 size() const { return size_; }  // of RAM

  // The host address of [at, at+length), or nullptr when it is not wholly inside one RAM range (or one extra page).
  std::byte* host(Gpa at, u64 length) const {
    for (const RamRange& range : ranges_)
      if (range.contains(at, length)) return base_ + range.file_offset + (at - range.start);
    return extra_ != nullptr ? extra_host(at, length) : nullptr;
  }

  // ---- extra pages: zero-filled pages of ours, numbered from 0, in the memfd behind RAM. Any thread.
  u64 extra_pages() const;
  std::byte* extra_page(u64 number) const;                       // its host address, wherever it is placed
  std::optional<u64> extra_number(const std::byte* host) const;  // of the extra page that starts there
  // Makes the page appear at `at` (page aligned) instead of where it was. In RAM it hides the page that was there; the
  // host address of `at` stays. False: another extra page is there, or the host refused.
  bool place_extra(u64 number, Gpa at);
  void remove_extra(u64 number);              // RAM that it hid is back, with its contents
  std::optional<u64> extra_at(Gpa at) const;  // which page is placed in the frame of `at`
  std::optional<Gpa> extra_place(u64 number) const;

  // RAM and extra pages numbered by their place in the memfd; nullopt: nothing is there.
  u64 pages() const { return size_ / kPageSize + extra_pages(); }
  std::optional<u64> page_number(Gpa at) const;

  // From now on large pages of the host's are wanted, for they make nested paging cheap. Before any vCPU runs.
  void want_large_pages();
  // The guest will soon use much of this: where large pages are wanted, its whole 2 MiB pieces get them now, and become
  // resident. What is not RAM, and a host that has none, is passed over. What is there stays as it is.
  void expect_use(Gpa at, u64 length) const;
  void expect_use_soon(Gpa at, u64 length) const;  // the same beside the caller; one thread at a time
  // Bytes of the pieces that the host would rather keep whole.
  u64 piece() const { return large_pages_ ? 2_MiB : kPageSize; }

  // Gives whole pages of RAM back to the host; they read as zero and come back when written.
  void discard(Gpa at, u64 length);

  // A device that wrote to RAM through host() says so before it tells the guest. write() does it by itself.
  void note_written(Gpa at, u64 length) const {
    if (observer_ != nullptr && length != 0) observer_->written(at, length);
  }
  void note_written(const std::byte* host, u64 length) const;  // the same by an address that host() gave
  void set_write_observer(WriteObserver* observer) {
    observer_ = observer;
  }  // before any device or vCPU runs; or nullptr

  // Copies that may span ranges but not holes. False (and nothing promised about `out`) when any byte is not RAM.
  [[nodiscard]] bool read(Gpa at, std::span<std::byte> out) const;
  [[nodiscard]] bool write(Gpa at, std::span<const std::byte> in) const;

  template <class T>
    requires std::is_trivially_copyable_v<T>
  std::optional<T> load(Gpa at) const {
    T value;
    if (!read(at, std::as_writable_bytes(std::span{&value, 1}))) return std::nullopt;
    return value;
  }
  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool store(Gpa at, const T& value) const {
    return write(at, std::as_bytes(std::span{&value, 1}));
  }

 private:
  struct Extra;
  GuestMemory();
  std::byte* extra_host(Gpa at, u64 length) const;
  void note_remapped(Gpa page) const;
  void hold(void* mapping, u64 size);
  // Calls make(address, length) for the whole large pages of RAM in [at, at+length), if they are wanted.
  template <class Make>
  void each_large_page(Gpa at, u64 length, Make make) const;

  UniqueFd fd_;
  std::shared_ptr<void> mapping_;                       // unmapped when the last that sees it goes
  std::shared_ptr<LargePageThread> large_page_thread_;  // goes before the mapping
  std::byte* base_ = nullptr;                           // where it begins
  WriteObserver* observer_ = nullptr;
  bool large_pages_ = false;
  u64 size_ = 0;
  std::vector<RamRange> ranges_;
  std::unique_ptr<Extra> extra_;  // where there are extra pages
};

}  // namespace bulkhead
