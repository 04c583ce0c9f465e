#include <ucontext.h>

#include <csignal>

#include "base/bits.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/emit/builder.h"
#include "engine/dbt/emit/counted_loop.h"
#include "engine/dbt/emit/translator_impl.h"
#include "engine/dbt/simd/host_fault.h"

namespace bulkhead::engine::dbt {

class BlockFactory {
 public:
  BlockFactory(Cpu& cpu, CodeCache& cache)
      : to_executable_{cache.memory().begin() - cache.memory().writable()},
        writer_{cache.memory().writable(), cache.memory().size()},
        thunks_{write_thunks(writer_, to_executable_)},
        start_{writer_.getSize()},
        builder_{cpu, cache, writer_, thunks_, to_executable_} {}

  Block* build(const BlockRequest& request) { return builder_.build(request); }
  bool full() const { return builder_.full(); }
  unsigned last_instructions() const { return builder_.instruction_count(); }
  void code_changed() { builder_.code_changed(); }
  void clear() {
    writer_.setSize(start_);
    builder_.code_changed();
  }
  std::size_t start() const { return start_; }
  const Thunks& thunks() const { return thunks_; }

 private:
  const std::ptrdiff_t to_executable_;
  CodeWriter writer_;
  const Thunks thunks_;
  const std::size_t start_;
  BlockBuilder builder_;
};

namespace {

// In the signal handler, in translated code: RSP is the CpuState. The exit thunk takes the guest's registers from where
// they are.
bool on_host_fault(void* owner, ucontext_t* context, int, siginfo_t*) {
  greg_t* const regs = context->uc_mcontext.gregs;
  CpuState& s = *reinterpret_cast<CpuState*>(regs[REG_RSP]);
  s.jit_exit_rip = static_cast<u64>(regs[REG_RIP]);
  s.jit_scratch[kScratchValue] = static_cast<u64>(regs[REG_EFL]);
  regs[REG_RIP] = static_cast<greg_t>(reinterpret_cast<u64>(static_cast<const EntryPoints*>(owner)->host_fault));
  return true;
}

}  // namespace

Result<std::unique_ptr<BlockRunner>> Translator::create(Cpu& cpu, u64 cache_bytes, PerfMap* perf_map) {
  BH_ASSIGN(std::unique_ptr<CodeCache> cache, CodeCache::create(cache_bytes));
  return std::unique_ptr<BlockRunner>{new Translator{cpu, std::move(cache), perf_map}};
}

Translator::Translator(Cpu& cpu, std::unique_ptr<CodeCache> cache, PerfMap* perf_map)
    : cpu_{cpu},
      s_{cpu.s},
      tables_{jit_tables(cpu.s)},
      cache_{std::move(cache)},
      perf_map_{perf_map},
      factory_{std::make_unique<BlockFactory>(cpu, *cache_)} {
  tables_.cpu = &cpu;
  tables_.translator = this;
  tables_.miss = &Translator::miss;
  tables_.interpret = &Translator::interpret;
  entry_ = {factory_->thunks().enter, factory_->thunks().host_fault};
  forget_all_jumps();
  cpu.code_observer = this;
  register_fault_range(cache_->memory().begin() + factory_->start(), cache_->memory().end(), on_host_fault, &entry_);
}

Translator::~Translator() {
  unregister_fault_range(cache_->memory().begin() + factory_->start());
  cpu_.code_observer = nullptr;
}

Block* Translator::translate(u64 gpa, u32 key) {
  cpu_.spill_fpu();
  ensure_fault_stack();
  const BlockRequest request{.rip = s_.rip, .gpa = gpa, .key = key, .space = s_.tlb_space};
  Block* block = factory_->build(request);
  if (block == nullptr && factory_->full()) {
    clear();
    block = factory_->build(request);
  }
  if (block != nullptr) {
    counters.blocks.fetch_add(1, std::memory_order_relaxed);
    counters.instructions.fetch_add(factory_->last_instructions(), std::memory_order_relaxed);
    if (perf_map_ != nullptr)
      perf_map_->add(block->code, block->code_size, block->rip, s_.tlb_space == TlbSpace::kUser);
  }
  return block;
}

bool Translator::skip_rounds(Link& link, u64 gpa) {
  cpu_.spill_fpu();
  const u64 page = align_down(gpa, kPageSize);
  const std::byte* const bytes = cpu_.shared.ram(page);
  if (bytes == nullptr) return false;
  const std::span<const u8> code{reinterpret_cast<const u8*>(bytes), kPageSize};
  const auto skip = skip_counted_loop(code, align_down(s_.rip, kPageSize), s_.rip, s_.gpr);
  if (!skip) return --link.loop_tries != 0;
  link.loop_tries = BlockBuilder::kLoopTries;
  s_.gpr = skip->gpr;
  counters.skipped_rounds.fetch_add(skip->rounds, std::memory_order_relaxed);
  return true;
}

void Translator::clear() {
  cpu_.spill_fpu();
  forget_all_jumps();
  cache_->clear();
  factory_->clear();
  blocks_changed_ = true;
  ++generation_;
  counters.flushes.fetch_add(1, std::memory_order_relaxed);
}

bool Translator::code_written(u64 gpa, u64 size) {
  cpu_.spill_fpu();
  bool any = false;
  const bool left = cache_->invalidate(gpa, size, [&](Block& block) {
    any = true;
    for (auto& space : tables_.jump)
      if (JumpEntry& entry = space[jump_index(block.rip)]; entry.code == block.code) entry = {kNoRip, nullptr};
  });
  factory_->code_changed();
  if (any) {
    blocks_changed_ = true;
    counters.invalidations.fetch_add(1, std::memory_order_relaxed);
  }
  return left;
}

Result<std::unique_ptr<BlockRunner>> make_translator(Cpu& cpu, u64 cache_bytes, PerfMap* perf_map) {
  return Translator::create(cpu, cache_bytes, perf_map);
}

const TranslatorCounters& translator_counters(const BlockRunner& runner) {
  return static_cast<const Translator&>(runner).counters;
}

}  // namespace bulkhead::engine::dbt
