// A guest's grant table, of pages that lie side by side. Any thread.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/assert.h"
#include "device/xenbus/ports.h"

namespace bulkhead::device::xenbus::testing {

class FakeGrants final : public GrantPort {
 public:
  static constexpr u32 kFirst = 8;  // as after the reserved entries

  explicit FakeGrants(u32 pages = 2048)
      : memory_{static_cast<std::byte*>(std::aligned_alloc(kPageSize, pages * kPageSize)), std::free}, pages_{pages} {
    std::memset(memory_.get(), 0, pages * kPageSize);
  }
  ~FakeGrants() override { EXPECT_EQ(mapped(), 0u) << "pages that were not given back"; }

  // The guest's side. Pages of consecutive calls are neighbours.
  u32 grant(bool writable = true) {
    const std::lock_guard lock{mutex_};
    BH_ASSERT(entries_.size() < pages_);
    const u32 reference = kFirst + static_cast<u32>(entries_.size());
    entries_.push_back({writable, false, 0, 0});
    return reference;
  }
  std::vector<u32> grant_run(u32 count, bool writable = true) {
    std::vector<u32> list;
    for (u32 i = 0; i < count; ++i) list.push_back(grant(writable));
    return list;
  }
  std::byte* page(u32 reference) { return memory_.get() + (reference - kFirst) * kPageSize; }
  void revoke(u32 reference) {
    const std::lock_guard lock{mutex_};
    entries_[reference - kFirst].revoked = true;
  }

  // What the backend did.
  u64 mapped() {
    const std::lock_guard lock{mutex_};
    u64 sum = 0;
    for (const Entry& entry : entries_) sum += entry.mapped;
    return sum;
  }
  u64 mapped(u32 reference) {
    const std::lock_guard lock{mutex_};
    return entries_[reference - kFirst].mapped;
  }
  // How often we heard that the page may have been written.
  u64 writes(u32 reference) {
    const std::lock_guard lock{mutex_};
    return entries_[reference - kFirst].writes;
  }

  std::byte* map(u32 reference, bool writable) override {
    const std::lock_guard lock{mutex_};
    if (reference < kFirst || reference - kFirst >= entries_.size()) return nullptr;
    Entry& entry = entries_[reference - kFirst];
    if (entry.revoked || (writable && !entry.writable)) return nullptr;
    ++entry.mapped;
    return page(reference);
  }
  void unmap(u32 reference, bool writable) override {
    const std::lock_guard lock{mutex_};
    Entry& entry = entries_.at(reference - kFirst);
    EXPECT_GT(entry.mapped, 0u) << "given back twice: " << reference;
    --entry.mapped;
    if (writable) ++entry.writes;
  }

 private:
  struct Entry {
    bool writable, revoked;
    u64 mapped, writes;
  };
  std::mutex mutex_;
  std::unique_ptr<std::byte, decltype(&std::free)> memory_;
  const u32 pages_;
  std::vector<Entry> entries_;
};

}  // namespace bulkhead::device::xenbus::testing
