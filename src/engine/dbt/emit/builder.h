// Builds one block: decodes guest instructions, finds out where the arithmetic flags are live, and writes host code.
#pragma once
#include <span>
#include <vector>

#include "engine/dbt/cache/code_cache.h"
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/emit/classify.h"
#include "engine/dbt/emit/rewrite.h"
#include "engine/dbt/emit/thunks.h"

namespace bulkhead::engine::dbt {

// What a block is made for. Everything in `key` changes the code that is made; see key_of().
struct BlockRequest {
  u64 rip = 0;
  u64 gpa = 0;
  u32 key = 0;
  TlbSpace space = TlbSpace::kSupervisor;
};

class BlockBuilder {
 public:
  BlockBuilder(Cpu& cpu, CodeCache& cache, CodeWriter& writer, const Thunks& thunks, std::ptrdiff_t to_executable);

  // nullptr: this instruction is for the interpreter (undecodable here, or across an unreadable page), or there is no
  // room (`full()`).
  Block* build(const BlockRequest& request);
  bool full() const { return full_; }
  unsigned instruction_count() const { return static_cast<unsigned>(items_.size()); }  // of the last block

  static constexpr unsigned kMaxInstructions = 48;
  static constexpr u64 kRoomForBlock = 64 << 10;  // no block is larger
  static constexpr u64 kMaxLoopSize = 512;
  static constexpr u8 kLoopTries = 2;
  // Worst-case description: marks, links, interpreter sites.
  static constexpr u64 kRoomForDescription = 24 << 10;

 private:
  struct Item {
    Insn insn;
    InsnKind kind;
    u64 rip;
    u32 live_before, live_after;  // arithmetic flags
    u32 live_at_target;           // of a conditional branch
  };
  struct Cold {
    enum class Kind : u8 { kMiss, kSideExit, kStub } kind;
    Xbyak::Label from, back;
    u32 what = 0;    // kMiss: size | write << 8 | offset << 16
    u64 target = 0;  // kSideExit
    bool save_flags = false;
    Link* link = nullptr;  // kStub
    u8* patch = nullptr;   // instead of `from`: behind a rel32 that shall lead here
  };

  bool decode_block(const BlockRequest& request);
  bool decode_across_pages(const BlockRequest& request);
  void find_live_flags();
  u32 live_at(u64 rip);  // flags that code at `rip` may read before it writes them
  const u8* code_bytes(u64 rip, unsigned& available);

  void emit(const Item& item);
  void emit_native(const Item& item);
  void emit_bit_memory(const Item& item);
  void emit_lea(const Item& item);
  void emit_push(const Item& item);
  void emit_pop(const Item& item);
  void emit_leave(const Item& item);
  void emit_call(const Item& item);
  void emit_call_indirect(const Item& item);
  void emit_jump_indirect(const Item& item);
  void emit_ret(const Item& item);
  void emit_jcc(const Item& item);
  void emit_jrcxz(const Item& item);
  void emit_cli(const Item& item);
  void emit_interpret(const Item& item);

  // ---- pieces
  void address_to_r8(const Insn& insn, u64 next_rip, bool with_segment);
  void tlb_r8(unsigned size, bool write, const Item& item);  // linear R8 -> host R8; uses R9, R10 and flags
  void push_value_register(const Item& item, int host_register);
  void jump_to_r8();                        // indirect, guest target in R8; flags saved already
  void jump_to(u64 target);                 // direct; ends the code path; flags saved already
  Link* link_at(u8* site_end, u64 target);  // the rel32 that ends there
  void stub(const Cold& cold);
  const void* thunk(const u8* executable) const { return executable - to_executable_; }  // as the writer names it
  bool can_link(u64 target) const;
  void register_to(int host, unsigned guest);  // host <- guest
  void load_guest(int host, unsigned guest) { register_to(host, guest); }
  void store_guest(unsigned guest, int host);
  void write_host_code(const HostCode& code);
  void mark(const Item& item);
  void emit_cold();

  // ---- where the flags are
  void save_flags();           // host -> jit_flags; uses R10
  void restore_flags();        // jit_flags -> host; uses R10
  void keep_flags(u32 live) {  // before something that destroys the host's
    if (live != 0 && !flags_in_memory_) save_flags();
  }
  void clobber_flags(u32 live) {
    keep_flags(live);
    flags_in_host_ = false;
  }
  void want_flags(const Item& item);
  void wrote_flags(const Item& item);

  Cpu& cpu_;
  CodeCache& cache_;
  CodeWriter& w_;
  const Thunks& thunks_;
  const std::ptrdiff_t to_executable_;

  BlockRequest request_;
  std::vector<Item> items_;
  std::vector<InsnMark> marks_;
  std::vector<u64> watched_pages_;
  std::vector<std::unique_ptr<Cold>> cold_;
  const u8* start_ = nullptr;  // writable
  u64 end_rip_ = 0;
  bool crosses_page_ = false;
  u64 second_gpa_ = 0;
  bool ended_ = false;
  bool uses_vectors_ = false;
  bool flags_in_host_ = false, flags_in_memory_ = true;
  bool full_ = false;
};

}  // namespace bulkhead::engine::dbt
