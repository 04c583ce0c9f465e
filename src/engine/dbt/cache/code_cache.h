// The translated code of one vCPU: memory for code and for its descriptions, both bounded; the block table; links
// between blocks; and what becomes invalid when guest code changes. Only the vCPU's thread. Space is given back all at
// once: when it runs out, everything is dropped (clear()), never while translated code is on the host's stack.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/dbt/cache/block.h"
#include "engine/dbt/cache/code_memory.h"
#include "memory/pages.h"

namespace bulkhead::engine::dbt {

class CodeCache {
 public:
  static Result<std::unique_ptr<CodeCache>> create(u64 bytes);

  CodeMemory& memory() { return memory_; }

  // ---- descriptions; nullptr when the arena is full: clear() and start again
  void* allocate(std::size_t bytes);
  template <class T>
  T* allocate_array(std::size_t count) {
    return static_cast<T*>(allocate(sizeof(T) * count));
  }
  bool has_room_for_descriptions(std::size_t bytes) const { return arena_used_ + bytes <= arena_.bytes().size(); }

  // ---- blocks
  // General registers only, as are the two below.
  Block* find(u64 gpa, u64 rip, u32 key) const;
  Block* containing(const u8* host_pc) const;  // valid or not
  static const InsnMark* mark_at(const Block& block, const u8* host_pc);

  void insert(Block* block);  // blocks come in ascending order of code
  // `block` was made knowing that page too.
  void depend(Block& block, u64 gpa_page) { pages_[gpa_page].blocks.push_back(&block); }
  void link(Link& link, Block& to);  // same page, or pages whose mapping is watched by the caller
  void unlink_incoming(Block& block);
  // Drops the blocks that were made from these bytes, which lie on one page; calls forget(block) for each. After
  // kMaxWrites of them to one page all of its blocks go, so that a page of code that becomes one of data is not written
  // the slow way for long. Whether blocks are left there.
  static constexpr unsigned kMaxWrites = 16;
  template <class Forget>
  bool invalidate(u64 gpa, u64 size, Forget forget) {
    const auto found = pages_.find(align_down(gpa, kPageSize));
    if (found == pages_.end()) return false;
    Page& page = found->second;
    const bool all = size >= kPageSize || ++page.writes > kMaxWrites;
    std::erase_if(page.blocks, [&](Block* block) {
      if (!block->valid) return true;
      if (!all && !block->was_made_from(gpa, size)) return false;
      remove(*block);
      forget(*block);
      return true;
    });
    if (!page.blocks.empty()) return true;
    pages_.erase(found);
    return false;
  }
  void clear();

  std::size_t block_count() const { return by_code_.size(); }

 private:
  CodeCache(CodeMemory memory, Pages arena, Pages buckets);
  static constexpr unsigned kBucketBits = 17;
  static u32 bucket_of(u64 gpa, u32 key) {
    return static_cast<u32>((gpa ^ (gpa >> kBucketBits) ^ (u64{key} << 9)) & ((1u << kBucketBits) - 1));
  }
  struct Page {
    std::vector<Block*> blocks;
    unsigned writes = 0;
  };
  void remove(Block& block);

  CodeMemory memory_;
  Pages arena_;
  std::size_t arena_used_ = 0;
  Pages bucket_memory_;
  std::span<Block*> buckets_;
  std::vector<Block*> by_code_;
  std::unordered_map<u64, Page> pages_;
};

}  // namespace bulkhead::engine::dbt
