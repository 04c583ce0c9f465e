// Builds one block: decodes guest instructions, finds out where the arithmetic flags are live, and writes host code.
#pragma once
#include <array>
#include <span>
#include <vector>

#include "engine/dbt/cache/code_cache.h"
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/emit/classify.h"
#include "engine/dbt/emit/decode_cache.h"
#include "engine/dbt/emit/rewrite.h"
#include "engine/dbt/emit/thunks.h"
#include "engine/dbt/emit/window.h"

namespace bulkhead::engine::dbt {

// What a block is made for. Everything in `key` changes the code that is made; see Translator::key().
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
  void code_changed() { ++code_version_; }
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
    bool on_stack;                // it has one access at a known place of the stack...
    bool opens_window;
    u8 window;     // ...in this window, counted from 1; 0: in none
    i32 stack_at;  // ...here, as the window's bounds are given
  };
  // Code that the straight path jumps to, written behind it.
  struct Cold {
    enum class Kind : u8 { kMiss, kSideExit, kStub, kLeave } kind;
    u8* from = nullptr;        // writable address behind the rel32 that shall lead here
    const u8* back = nullptr;  // kMiss: where to go on
    u32 what = 0;              // kMiss: MissBits and guest offset
    u64 target = 0;            // kSideExit
    bool save_flags = false;
    bool conditional = false;      // kSideExit: `from` is the one way here, and may become the link itself
    Link* link = nullptr;          // kStub
    const u8* leave_by = nullptr;  // kLeave: a thunk that takes the block's RIP
  };

  static constexpr u8 kEqual = 4, kNotEqual = 5;  // conditions, as in the low nibble of Jcc [SDM-1 Appendix B]

  bool decode_block(const BlockRequest& request);
  bool decode_across_pages(const BlockRequest& request);
  void find_live_flags();
  void plan_windows();
  u32 live_at(u64 rip);  // flags that code at `rip` may read before it writes them
  u32 look_ahead(u64 rip, const u8* bytes, unsigned available, bool& one_page, Reach& seen);
  bool on_own_page(u64 rip) const { return align_down(rip, kPageSize) == align_down(request_.rip, kPageSize); }
  const u8* code_bytes(u64 rip, unsigned& available);

  void emit(const Item& item);
  void emit_native(const Item& item);
  void emit_bit_memory(const Item& item);
  void emit_lea(const Item& item);
  void emit_mov_from_segment(const Item& item);
  void emit_push(const Item& item);
  void emit_push_flags(const Item& item);
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
  void address_to(int host, const Insn& insn, u64 next_rip);
  void address_to_r8(const Insn& insn, u64 next_rip, bool with_segment);
  // Linear R8 -> host R8; uses R9, R10 and flags. `what`: size and MissBits.
  void tlb_r8(u32 what, const Item& item);
  void tlb_r8(unsigned size, bool write, const Item& item) { tlb_r8(size | (write ? u32{kMissWrite} : 0), item); }
  // R8 and the distance from it that is returned are the host address of the item's 8 bytes of stack, `offset` from
  // RSP. Uses R9, R10 and flags, unless its window is open.
  i32 stack_to_r8(const Item& item, i32 offset, bool write);
  void window_to_r8(const Item& item);
  bool in_window(const Item& item) const { return item.opens_window || (item.window != 0 && item.window == window_); }
  i32 window_offset(const Item& item) const { return item.stack_at - windows_[item.window - 1u].low; }
  void move_rsp(i32 by) { w_.lea(Xbyak::util::r11, Xbyak::util::ptr[Xbyak::util::r11 + by]); }
  void store_constant(i32 offset_from_r8, u64 value);  // 8 bytes; may use R9
  void jump_to_r8();                                   // indirect, guest target in R8; flags saved already
  void jump_to(u64 target);                            // direct; ends the code path; flags saved already
  Link* link_at(u8* site_end, u64 target);             // the rel32 that ends there
  void stub(Link& link);
  void side_exit(const Cold& cold);
  // Jumps to cold code: JMP, or Jcc by the low nibble of its opcode.
  u8* jump_later();
  u8* jump_later(u8 condition);
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
  void flags_to_r9();          // jit_flags and the others, as PUSHFQ has them; uses R10 and the host's flags
  void keep_flags(u32 live) {  // before something that destroys the host's
    if (live != 0 && !flags_in_memory_) save_flags();
  }
  void clobber_flags(u32 live) {
    keep_flags(live);
    flags_in_host_ = false;
  }
  void want_flags(const Item& item);
  void wrote_flags(const Item& item);

  struct Liveness {
    const u8* code = nullptr;
    u32 live = 0, version = 0;
    Reach seen{};  // on that page
  };
  static constexpr unsigned kLivenessEntries = 4096;

  Cpu& cpu_;
  CodeCache& cache_;
  CodeWriter& w_;
  const Thunks& thunks_;
  const std::ptrdiff_t to_executable_;

  std::array<Liveness, kLivenessEntries> liveness_{};
  DecodeCache decoded_;
  u32 code_version_ = 1;
  BlockRequest request_;
  std::vector<Item> items_;
  std::vector<InsnMark> marks_;
  std::vector<u64> watched_pages_;
  Reach reach_;  // what the block was made from on its own page
  std::vector<Cold> cold_;
  std::vector<StackWindow> windows_;
  const u8* start_ = nullptr;  // writable
  u64 end_rip_ = 0;
  bool crosses_page_ = false;
  u64 second_gpa_ = 0;
  bool ended_ = false;
  bool uses_vectors_ = false;
  u8 window_ = 0;     // the open window: its host address is in kScratchWindow
  u8 r8_window_ = 0;  // the window whose host address is in R8
  bool flags_in_host_ = false, flags_in_memory_ = true;
  bool full_ = false;
};

}  // namespace bulkhead::engine::dbt
