// The translator's outer loop. General registers only: the guest's vector state may be in the host's registers.
#include "base/bits.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/dbt/cpu/shared.h"
#include "engine/dbt/emit/translator_impl.h"
#include "engine/dbt/interp/interp.h"

namespace bulkhead::engine::dbt {
namespace {

unsigned page_hash(u64 linear) {
  const u64 page = linear >> kPageShift;
  return static_cast<unsigned>((page ^ (page >> 12)) & 4095);
}

void count(std::atomic<u64>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

bool must_return(StepResult result) {
  return result == StepResult::kExit || result == StepResult::kHalt || result == StepResult::kShutdown ||
         result == StepResult::kTrap;
}

}  // namespace

void Translator::pack_flags(CpuState& s) {
  s.jit_flags = static_cast<u32>((s.rflags & 0xff) << 8 | ((s.rflags >> 11) & 1));
}

void Translator::unpack_flags(CpuState& s) {
  constexpr u64 kLow = kArithmeticFlags & 0xff;
  s.rflags = (s.rflags & ~kArithmeticFlags) | ((s.jit_flags >> 8) & kLow) | (s.jit_flags & 1) << 11;
}

u32 Translator::key() const {
  return static_cast<u32>(s_.tlb_space) | static_cast<u32>(s_.cr0 & 0xc) << 4;  // EM, TS; beside it kKeyNoWindows
}

u64 Translator::configuration() const {
  constexpr u64 kCr4 = 1u << 9 | 1u << 10 | 1u << 18;  // OSFXSR, OSXMMEXCPT, OSXSAVE
  return (s_.cr4 & kCr4) << 32 | (s_.xcr0 & 0xffff) << 8 | (s_.cr0 & 0x2e);
}

void Translator::check_configuration() {
  const u64 now = configuration();
  if (now == configuration_) [[likely]]
    return;
  if ((now ^ configuration_) & ~u64{0xc})
    clear();
  else
    forget_all_jumps();  // TS or EM: other blocks, by their key
  configuration_ = now;
}

bool Translator::for_interpreter() const {
  return cpu_.debug_active() || cpu_.code_size() != CodeSize::k64 || s_.cpl == 1 || s_.cpl == 2;
}

StepResult Translator::interpret_at(u64 rip) {
  count(counters.steps);
  s_.rip = rip;
  return step(cpu_);
}

StepResult Translator::run(Cpu&) {
  access_by_access_ = false;
  // An instruction that waits for the machine's answer, or the one behind STI, goes first and alone.
  if (s_.interrupt_shadow || cpu_.io_log.done != 0)
    if (const StepResult result = interpret_at(s_.rip); must_return(result)) return result;
  while (s_.pending.load(std::memory_order_relaxed) == 0) {
    if (for_interpreter() || s_.interrupt_shadow) {
      if (const StepResult result = interpret_at(s_.rip); must_return(result)) return result;
      continue;
    }
    check_configuration();
    const u8* const code = find_code();
    if (code == nullptr) {
      if (must_return(pending_result_)) return pending_result_;
      continue;
    }
    blocks_changed_ = false;
    pack_flags(s_);
    const u32 why = entry_.enter(&s_, code);
    unpack_flags(s_);
    StepResult result = StepResult::kNext;
    switch (static_cast<JitExit>(why)) {
      case JitExit::kLookup:
      case JitExit::kPoll:
        break;
      case JitExit::kVectors:
        cpu_.fill_fpu();
        break;
      case JitExit::kLink:
        follow_link();
        break;
      case JitExit::kMiss: {
        const Block* const block = cache_->containing(reinterpret_cast<const u8*>(s_.jit_exit_rip));
        BH_ASSERT(block != nullptr);
        const u64 rip = block->rip + ((s_.jit_scratch[kScratchMiss] >> kMissOffsetShift) & 0xffff);
        if ((s_.jit_scratch[kScratchMiss] & kMissWindow) != 0) {
          s_.rip = rip;
          access_by_access_ = true;
          break;
        }
        count(counters.misses_interpreted);
        result = interpret_at(rip);
        break;
      }
      case JitExit::kHostFault: {
        count(counters.host_faults);
        const u8* const at = reinterpret_cast<const u8*>(s_.jit_exit_rip);
        const Block* const block = cache_->containing(at);
        BH_ASSERT(block != nullptr);
        const InsnMark* const mark = CodeCache::mark_at(*block, at);
        BH_ASSERT(mark != nullptr);
        if (mark->flags_in_host)
          s_.rflags = (s_.rflags & ~kArithmeticFlags) | (s_.jit_scratch[kScratchValue] & kArithmeticFlags);
        result = interpret_at(block->rip + mark->guest_offset);
        break;
      }
      default:
        result = static_cast<StepResult>(why - static_cast<u32>(JitExit::kStep));
        break;
    }
    if (must_return(result)) return result;
  }
  return StepResult::kBranch;
}

// As run() finds it, where nothing but the jump cache needs to be asked.
const u8* Translator::code_at_once() {
  if (for_interpreter() || configuration() != configuration_ || cpu_.io_log.done != 0) return nullptr;
  const JumpEntry& entry = tables_.jump[static_cast<unsigned>(s_.tlb_space)][jump_index(s_.rip)];
  if (entry.rip != s_.rip) return nullptr;
  blocks_changed_ = false;
  return entry.code;
}

const u8* Translator::find_code() {
  if (access_by_access_) return find_code_without_windows();
  const JumpEntry& entry = tables_.jump[static_cast<unsigned>(s_.tlb_space)][jump_index(s_.rip)];
  if (entry.rip == s_.rip) return entry.code;
  count(counters.lookups);
  Block* const block = block_at_rip(key());
  if (block == nullptr) return nullptr;
  remember(*block);
  return block->code;
}

// The stack lies across two pages, or on one that cannot be written: a block that looks at every access by itself.
const u8* Translator::find_code_without_windows() {
  access_by_access_ = false;
  count(counters.windows_missed);
  Block* const block = block_at_rip(key() | kKeyNoWindows);
  return block == nullptr ? nullptr : block->code;
}

// nullptr: interpreted; pending_result_ says what came of it.
Block* Translator::block_at_rip(u32 key) {
  pending_result_ = StepResult::kNext;
  volatile u64 gpa = 0;
  BH_GUARD(cpu_) { gpa = cpu_.translate_code(s_.rip); }
  Block* block = nullptr;
  // After a fault the interpreter meets the same one, and delivers it.
  if (cpu_.escape_kind == Escape::kNone) block = find_block(gpa, key);
  if (block == nullptr) pending_result_ = interpret_at(s_.rip);
  return block;
}

Block* Translator::find_block(u64 gpa, u32 key) {
  Block* const block = cache_->find(gpa, s_.rip, key);
  if (block == nullptr) return translate(gpa, key);
  if (block->crosses_page) {
    const Cpu::Translation second =
        cpu_.walk(align_up(s_.rip + 1, kPageSize), Access::kExecute, s_.tlb_space == TlbSpace::kUser);
    if (!second.ok) return nullptr;
    if (align_down(second.gpa, kPageSize) != block->second_gpa) return translate(gpa, key);
  }
  return block;
}

void Translator::remember(const Block& block) {
  const u64 rip = block.rip;
  const unsigned index = jump_index(rip);
  const TlbSpace space = s_.tlb_space;
  tables_.jump[static_cast<unsigned>(space)][index] = {rip, block.code};
  for (const u64 address : {rip, rip + block.guest_size - 1}) {
    const unsigned hash = page_hash(address);
    code_pages_[hash / 64] |= u64{1} << (hash % 64);
  }
  if (space != TlbSpace::kUser && ((s_.cr4 & (1u << 7)) != 0 || cpu_.deprivileged) && cpu_.code_is_global(rip)) return;
  if (log_count_ == kLogSize)
    log_overflow_ = true;
  else
    log_[log_count_++] = {static_cast<u16>(index), space};
}

// The target is on the same page as the link: while that page's code runs, its mapping is the one both were made for.
void Translator::follow_link() {
  Link* const link = reinterpret_cast<Link*>(s_.jit_scratch[kScratchLink]);
  s_.rip = link->target_rip;
  volatile u64 gpa = 0;
  BH_GUARD(cpu_) { gpa = cpu_.translate_code(s_.rip); }
  if (cpu_.escape_kind != Escape::kNone) return;
  if (link->loop_tries != 0 && skip_rounds(*link, gpa)) return;
  const u64 generation = generation_;
  Block* const block = find_block(gpa, key());
  if (block == nullptr || block->crosses_page || generation != generation_) return;
  count(counters.links);
  cache_->link(*link, *block);
}

void* Translator::miss(Cpu* cpu, u64 linear, u64 what) {
  Translator& self = *jit_tables(cpu->s).translator;
  count(self.counters.fills);
  return cpu->tlb_fill(linear, static_cast<unsigned>(what & kMissSize),
                       (what & kMissWrite) != 0 ? Access::kWrite : Access::kRead);
}

u32 Translator::interpret(Cpu* cpu, void* opaque) {
  const InterpretSite& site = *static_cast<const InterpretSite*>(opaque);
  CpuState& s = cpu->s;
  Translator& self = *jit_tables(s).translator;
  count(self.counters.interpreter_calls);
  const TlbSpace space = s.tlb_space;
  s.rip = site.rip;
  unpack_flags(s);
  StepResult result = execute(*cpu, site.insn);
  pack_flags(s);
  const bool quiet = s.pending.load(std::memory_order_relaxed) == 0;
  if (site.shadow_ends_here && quiet && result == StepResult::kBranch) {
    s.interrupt_shadow = false;
    result = StepResult::kNext;
  } else if (result == StepResult::kBranch && quiet && !s.interrupt_shadow) {
    if (const u8* const code = self.code_at_once()) {
      s.jit_scratch[kScratchTarget] = reinterpret_cast<u64>(code);
      return static_cast<u32>(JitExit::kGoOn);
    }
  }
  if (result != StepResult::kNext || s.pending.load(std::memory_order_relaxed) != 0 || s.interrupt_shadow ||
      s.tlb_space != space || self.blocks_changed_ || cpu->debug_active())
    return static_cast<u32>(JitExit::kStep) + static_cast<u32>(result);
  if (site.in_vector_block && !s.fpu_live) cpu->fill_fpu();
  return 0;
}

// ---- what takes cached targets away

void Translator::forget_jumps(TlbSpace space) {
  for (JumpEntry& entry : tables_.jump[static_cast<unsigned>(space)]) entry = {kNoRip, nullptr};
}

void Translator::forget_all_jumps() {
  count(counters.jump_flushes);
  for (unsigned space = 0; space < kTlbSpaces; ++space) forget_jumps(static_cast<TlbSpace>(space));
  for (u64& word : code_pages_) word = 0;
  log_count_ = 0;
  log_overflow_ = false;
}

void Translator::mappings_changed(bool global) {
  blocks_changed_ = true;
  if (global || log_overflow_) return forget_all_jumps();
  for (unsigned i = 0; i < log_count_; ++i)
    tables_.jump[static_cast<unsigned>(log_[i].space)][log_[i].index] = {kNoRip, nullptr};
  log_count_ = 0;
}

void Translator::mapping_changed(u64 linear) {
  const unsigned hash = page_hash(linear);
  if ((code_pages_[hash / 64] >> (hash % 64) & 1) == 0) return;
  blocks_changed_ = true;
  forget_all_jumps();
}

}  // namespace bulkhead::engine::dbt
