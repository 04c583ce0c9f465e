// Private to emit/: the parts of Translator that run while guest vector registers are live (run.cc) and those that
// don't.
#pragma once
#include <memory>

#include "engine/dbt/cache/code_cache.h"
#include "engine/dbt/emit/tables.h"
#include "engine/dbt/emit/translator.h"

namespace bulkhead::engine::dbt {

class BlockFactory;  // the builder and its writer; in translator.cc
struct EntryPoints {
  u32 (*enter)(CpuState*, const void* code) = nullptr;
  const u8* host_fault = nullptr;
};

class Translator final : public BlockRunner, public Cpu::CodeObserver {
 public:
  static Result<std::unique_ptr<BlockRunner>> create(Cpu& cpu, u64 cache_bytes, PerfMap* perf_map);
  ~Translator() override;

  StepResult run(Cpu& cpu) override;

  // A store changed code, or another vCPU's did. May come in the middle of an instruction.
  bool code_written(u64 gpa, u64 size) override;
  void mappings_changed(bool global) override;
  void mapping_changed(u64 linear) override;

  TranslatorCounters counters;

 private:
  Translator(Cpu& cpu, std::unique_ptr<CodeCache> cache, PerfMap* perf_map);

  // ---- run.cc: general registers only
  static void* miss(Cpu* cpu, u64 linear, u64 what);
  static u32 interpret(Cpu* cpu, void* site);
  const u8* find_code();     // nullptr: a fault was delivered, or the instruction was interpreted
  const u8* code_at_once();  // or nullptr
  const u8* find_code_without_windows();
  Block* block_at_rip(u32 key);
  Block* find_block(u64 gpa, u32 key);
  void remember(const Block& block);
  void follow_link();
  StepResult interpret_at(u64 rip);
  bool for_interpreter() const;
  u32 key() const;
  u64 configuration() const;
  void check_configuration();
  void forget_jumps(TlbSpace space);
  void forget_all_jumps();
  static void pack_flags(CpuState& s);
  static void unpack_flags(CpuState& s);

  // ---- translator.cc: anything goes; spills first
  Block* translate(u64 gpa, u32 key);
  // Of a loop that only counts; RIP is at its head. True: the link is not to be made, for the next time may be a loop.
  bool skip_rounds(Link& link, u64 gpa);
  void clear();

  Cpu& cpu_;
  CpuState& s_;
  JitTables& tables_;
  std::unique_ptr<CodeCache> cache_;
  PerfMap* const perf_map_;
  std::unique_ptr<BlockFactory> factory_;
  EntryPoints entry_;
  StepResult pending_result_ = StepResult::kNext;  // of an instruction interpreted on the way to a block
  bool access_by_access_ = false;                  // the next block is to be one without windows
  bool blocks_changed_ = false;                    // since the last entry: a block must not go on
  u64 configuration_ = 0;                          // what of CR0, CR4, XCR0 the blocks were made for
  u64 generation_ = 0;                             // of the cache: bumped by clear()

  // Jump cache entries whose mapping a non-global flush takes away.
  struct Logged {
    u16 index;
    TlbSpace space;
  };
  static constexpr unsigned kLogSize = 1024;
  std::array<Logged, kLogSize> log_{};
  unsigned log_count_ = 0;
  bool log_overflow_ = false;
  // Pages that jump cache entries came from, as a Bloom filter, so that INVLPG of a data page costs nothing.
  u64 code_pages_[64]{};
};

}  // namespace bulkhead::engine::dbt
