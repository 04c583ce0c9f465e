// The parts of the code cache that run while the guest's vector registers are live: general registers only.
#include "engine/dbt/cache/code_cache.h"

namespace bulkhead::engine::dbt {

Block* CodeCache::find(u64 gpa, u64 rip, u32 key) const {
  for (Block* block = buckets_[bucket_of(gpa, key)]; block != nullptr; block = block->next_in_bucket)
    if (block->gpa == gpa && block->rip == rip && block->key == key) return block;
  return nullptr;
}

Block* CodeCache::containing(const u8* host_pc) const {
  std::size_t low = 0, high = by_code_.size();
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (by_code_[middle]->code <= host_pc)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return nullptr;
  Block* const block = by_code_[low - 1];
  return host_pc < block->code + block->code_size ? block : nullptr;
}

const InsnMark* CodeCache::mark_at(const Block& block, const u8* host_pc) {
  const u32 offset = static_cast<u32>(host_pc - block.code);
  const InsnMark* best = nullptr;
  for (unsigned i = 0; i < block.mark_count && block.marks[i].host_offset <= offset; ++i) best = &block.marks[i];
  return best;
}

namespace {
void point(const Link& link, const u8* to) {
  const i32 relative = static_cast<i32>(to - link.site_end);
  __builtin_memcpy(link.site, &relative, sizeof relative);
}
}  // namespace

void CodeCache::link(Link& link, Block& to) {
  if (link.to != nullptr) return;
  link.to = &to;
  link.next_incoming = to.incoming;
  to.incoming = &link;
  // Forward links spare the poll: whatever goes on for long goes backward, or through the jump cache.
  point(link, link.backward ? to.code : to.unpolled);
}

void CodeCache::unlink_incoming(Block& block) {
  for (Link* link = block.incoming; link != nullptr;) {
    Link* const next = link->next_incoming;
    point(*link, link->stub);
    link->to = nullptr;
    link->next_incoming = nullptr;
    link = next;
  }
  block.incoming = nullptr;
}

}  // namespace bulkhead::engine::dbt
