#include "engine/dbt/cache/code_cache.h"

#include <algorithm>

#include "base/bits.h"

namespace bulkhead::engine::dbt {

Result<std::unique_ptr<CodeCache>> CodeCache::create(u64 bytes) {
  // Descriptions take about half as much as the code they describe.
  const u64 code = align_up(bytes / 3 * 2, kPageSize);
  BH_ASSIGN(CodeMemory memory, CodeMemory::create(code));
  BH_ASSIGN(Pages arena, Pages::allocate(bytes - bytes / 3 * 2));
  BH_ASSIGN(Pages buckets, Pages::allocate(sizeof(Block*) << kBucketBits));
  return std::unique_ptr<CodeCache>{new CodeCache{std::move(memory), std::move(arena), std::move(buckets)}};
}

CodeCache::CodeCache(CodeMemory memory, Pages arena, Pages buckets)
    : memory_{std::move(memory)},
      arena_{std::move(arena)},
      bucket_memory_{std::move(buckets)},
      buckets_{reinterpret_cast<Block**>(bucket_memory_.bytes().data()), std::size_t{1} << kBucketBits} {}

void* CodeCache::allocate(std::size_t bytes) {
  bytes = align_up(bytes, 8);
  if (!has_room_for_descriptions(bytes)) return nullptr;
  void* const at = arena_.bytes().data() + arena_used_;
  arena_used_ += bytes;
  return at;
}

void CodeCache::insert(Block* block) {
  Block*& bucket = buckets_[bucket_of(block->gpa, block->key)];
  block->next_in_bucket = bucket;
  bucket = block;
  by_code_.push_back(block);
  depend(*block, align_down(block->gpa, kPageSize));
  if (block->crosses_page) depend(*block, block->second_gpa);
}

void CodeCache::remove(Block& block) {
  Block** at = &buckets_[bucket_of(block.gpa, block.key)];
  while (*at != nullptr && *at != &block) at = &(*at)->next_in_bucket;
  if (*at == &block) *at = block.next_in_bucket;
  block.valid = false;
  unlink_incoming(block);
}

void CodeCache::clear() {
  std::ranges::fill(buckets_, nullptr);
  by_code_.clear();
  pages_.clear();
  arena_used_ = 0;
}

}  // namespace bulkhead::engine::dbt
