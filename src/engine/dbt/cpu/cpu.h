// One vCPU of the built-in engine: the architectural state and everything that the instruction set does to it that is
// not a single instruction: memory through paging, segments, exceptions, interrupts, control registers, MSRs.
//
// Faults are precise and non-local: raise() abandons the instruction and jumps to the innermost Cpu::Guard. Frames
// between hold nothing that needs a destructor. An instruction therefore does all that can fault before it changes
// registers.
//
// Compiled with general registers only (see README): no floating point, no library string functions.
#pragma once
#include <array>
#include <csetjmp>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/assert.h"
#include "base/bits.h"
#include "engine/dbt/cpu/cpu_state.h"
#include "engine/dbt/cpu/descriptor.h"
#include "engine/dbt/cpu/features.h"
#include "engine/dbt/cpu/flags.h"
#include "engine/dbt/front/insn.h"
#include "engine/engine.h"

namespace bulkhead::engine::dbt {

class Lapic;        // cpu/lapic.h
class SharedState;  // cpu/shared.h: what the vCPUs of a partition share (RAM view, code page map, LAPIC bus)

enum Vector : u8 {
  kDe = 0,
  kDb = 1,
  kNmi = 2,
  kBp = 3,
  kOfVector = 4,
  kBr = 5,
  kUd = 6,
  kNm = 7,
  kDf8 = 8,
  kTs = 10,
  kNp = 11,
  kSsFault = 12,
  kGp = 13,
  kPageFault = 14,
  kMf = 16,
  kAcFault = 17,
  kMc = 18,
  kXm = 19
};

struct Fault {
  u8 vector = 0;
  bool has_error = false;
  u32 error = 0;
  u64 address = 0;  // CR2 for #PF; DR6 bits for #DB
};

enum class Access : u8 { kRead, kWrite, kExecute };  // kWrite includes read-modify-write

// Why an instruction was abandoned.
enum class Escape : u8 { kNone, kFault, kExit };

// How the instruction that just completed leaves the vCPU.
enum class StepResult : u8 {
  kNext,      // RIP is the next instruction's; nothing that a translated block depends on changed
  kBranch,    // RIP changed, or something that blocks depend on did (mode, paging, CPL, IF): look up again
  kExit,      // exit() must be returned to the machine; RIP still at the instruction (its completion re-executes it)
  kHalt,      // HLT done, RIP behind it
  kShutdown,  // triple fault
  kTrap,      // of a deprivileged guest: cpu.trap is for its handler, and the instruction is over
};

class Cpu {
 public:
  // `place`: where the state lives (the JIT stack), outliving the Cpu; nullptr: in memory of its own.
  Cpu(SharedState& shared, unsigned index, CpuState* place = nullptr);
  ~Cpu();
  Cpu(const Cpu&) = delete;

  CpuState& s;  // lives at the end of this vCPU's JIT stack (emit/), or in plain memory
  SharedState& shared;
  const unsigned index;

  // ---- escapes -------------------------------------------------------------------------------------------------
  [[noreturn]] void raise(Vector vector);  // no error code
  [[noreturn]] void raise(Vector vector, u32 error);
  [[noreturn]] void raise_page_fault(u64 linear, u32 error);
  [[noreturn]] void escape_exit(Exit&& exit);  // hand an exit to the machine; re-executed afterwards
  Fault fault;                                 // valid after an escape of kind kFault
  __jmp_buf_tag* escape = nullptr;             // innermost guard; use BH_GUARD
  Escape escape_kind = Escape::kNone;

  // ---- memory by linear address (mmu/access.cc). Size 1, 2, 4, 8; may cross pages. Handles MMIO (by escape_exit and
  // the completion log), A/D bits, SMAP, code pages. Address must be canonical-checked by the caller's segmentation
  // step.
  u64 load(u64 linear, unsigned size);  // at current privilege (s.tlb_space)
  void store(u64 linear, unsigned size, u64 value);
  void load_bytes(u64 linear, void* out, unsigned length);  // up to 4096 bytes
  void store_bytes(u64 linear, const void* in, unsigned length);
  u64 load_system(u64 linear, unsigned size);  // implicit supervisor access (GDT, IDT, TSS)
  void store_system(u64 linear, unsigned size, u64 value);
  // Host address for an atomic read-modify-write of `size` (up to 16) bytes at `linear`, with write permission checked
  // and A/D set; nullptr when it isn't plain RAM within one page (then use locked_slow_path()).
  void* atomic_host(u64 linear, unsigned size);
  // Checks write permission for [linear, linear+size) now, raising what a store would raise.
  void probe_write(u64 linear, unsigned size);
  // Fetches up to 15 code bytes at linear `rip` + CS base. Returns how many are readable before a page that faults;
  // when 0, raises the #PF. `second_page_needed(have)` semantics: call fetch_fault(linear) to raise for a later byte.
  unsigned fetch(u64 linear, u8* out15);
  [[noreturn]] void fetch_fault(u64 linear);  // raises the #PF that fetching this byte causes

  // ---- paging (mmu/walk.cc, mmu/tlb.cc)
  struct Translation {
    u64 gpa = 0;
    u64 page_size = 0;
    bool user = false, writable = false, executable = true, global = false, dirty = false;
    u32 error = 0;  // page-fault error code when !ok
    bool ok = false;
  };
  // Walks the page tables; sets A (and D for writes) unless `probe_only`. Never raises.
  Translation walk(u64 linear, Access access, bool user, bool probe_only = false);
  // The TLB's slow path: returns the host address for [linear, +size) or nullptr when the access cannot be done
  // directly (MMIO, page crossing, fault, code page write): the interpreter then does the instruction. Never raises.
  // Used by translated code.
  void* tlb_fill(u64 linear, unsigned size, Access access);
  void flush_tlb(bool also_global);
  // What came for data from entry `number` of some table of the lowest level, which mapped `gpa_page`.
  void forget_entry(unsigned number, u64 gpa_page);
  void flush_tlb_page(u64 linear);                 // INVLPG
  void flush_tlb_write_entries_for(u64 gpa_page);  // a page became code: its direct writes must stop
  // Every entry that an access may be answered from, now or after it has come back from the victims.
  template <class Visit>
  void each_tlb_entry(Visit visit) {
    for (auto& space : s.tlb)
      for (TlbEntry& entry : space) visit(entry);
    for (Victim& victim : victims_) visit(victim.entry);
  }
  void invpcid(u64 type, u64 pcid, u64 linear);  // raises #GP; CPL and CPUID are the caller's to check
  // Linear code address to guest-physical; sets A; raises #PF. For block lookup.
  u64 translate_code(u64 linear);
  bool code_is_global(u64 linear);  // of code that can be run: whether its translation outlives a switch of CR3

  // ---- segmentation (cpu/segment.cc)
  // Linear address of seg:offset for an access of size bytes: limit/type checks outside 64-bit mode, canonical checks
  // in it.
  u64 linear(Seg seg, u64 offset, unsigned size, Access access);
  u64 effective_address(const Insn& insn) const;  // mem operand's offset, truncated to address size (no VSIB)
  u64 linear_of(const Insn& insn, unsigned size, Access access);
  void load_segment(Seg seg, u16 selector);  // MOV/POP Sreg, not CS
  void load_ldt(u16 selector);
  void load_tr(u16 selector);
  void set_real_mode_segment(Seg seg, u16 selector);
  void far_jump(u16 selector, u64 offset, unsigned operand_size);
  void far_call(u16 selector, u64 offset, unsigned operand_size, u64 return_rip);
  void far_return(unsigned operand_size, u16 pop_bytes);
  void iret(unsigned operand_size);
  void update_cpl(u8 cpl);  // and what depends on it (s.tlb_space)
  void mode_changed();      // after CR0/CR4/EFER/RFLAGS.AC/CS writes: recomputes derived state

  CodeSize code_size() const;                            // from CS and EFER.LMA
  bool long_mode() const { return (s.efer >> 10) & 1; }  // EFER.LMA
  bool protected_mode() const { return s.cr0 & 1; }
  bool v8086() const { return protected_mode() && (s.rflags & kVm); }
  unsigned stack_size() const;          // 2, 4 or 8: width of SP
  void push(u64 value, unsigned size);  // through SS; SP moves only if the store worked
  u64 pop(unsigned size);
  u64 stack_pointer() const;
  void set_stack_pointer(u64 value);  // honours stack_size()

  // ---- exceptions and interrupts (cpu/exception.cc)
  // Enters the handler for a fault at the present RIP (RIP is the faulting instruction's, or behind it for traps).
  // Handles double and triple faults. Returns kBranch or kShutdown.
  StepResult deliver(const Fault& fault);
  StepResult deliver_software_interrupt(u8 vector, u64 return_rip, bool int3_or_into, bool icebp);
  StepResult deliver_external(u8 vector);  // interrupt or NMI, already acknowledged
  // If an event (NMI, INIT, SIPI, interrupt with IF=1 and no shadow) can be taken now, takes it. Called at block
  // boundaries when s.pending is not 0. nullopt: nothing was taken. Clears pending bits that cannot be taken now and
  // re-arms them when they can (interrupts_may_be_deliverable()).
  std::optional<StepResult> take_pending_event();
  void interrupts_may_be_deliverable();  // after IF, TPR, shadow changes

  // ---- system registers (cpu/control.cc, cpu/msr.cc, cpu/cpuid.cc)
  u64 read_cr(unsigned cr);               // 0, 2, 3, 4, 8; raises #UD
  void write_cr(unsigned cr, u64 value);  // raises #GP
  u64 read_dr(unsigned dr);
  void write_dr(unsigned dr, u64 value);
  u64 read_msr(u32 index);  // raises #GP; unknown ones escape_exit(MsrExit)
  void write_msr(u32 index, u64 value);
  void write_xcr0(u64 value);
  void cpuid();  // EAX.. from leaf EAX/ECX
  u64 read_tsc() const;
  void write_rflags(u64 value, u64 changeable);  // masks, then mode_changed()/interrupts_may_be_deliverable()
  void syscall(u64 return_rip);
  void sysret(unsigned operand_size);
  void sysenter();
  void sysexit(unsigned operand_size);
  void reset(bool init);  // power-on or INIT state; the AP then waits for SIPI

  // ---- ports (cpu/io.cc): checks IOPL and the TSS bitmap, then the completion log or escape_exit(PortExit)
  u64 port_in(u16 port, unsigned size);
  void port_out(u16 port, unsigned size, u64 value);
  void check_port_permission(u16 port, unsigned size);  // raises #GP; string I/O asks before it touches memory
  // I/O that this instruction has already had answered, in order; cleared when it completes.
  struct IoLog {
    static constexpr unsigned kCapacity = 64;
    std::array<u64, kCapacity> value{};
    unsigned done = 0;   // answered by the machine
    unsigned next = 0;   // consumed in this execution
    bool fault = false;  // the answer to an MsrExit was #GP
  } io_log;
  void instruction_done() {
    io_log.done = io_log.next = 0;
    if (atomic_code_page_ != ~u64{0}) [[unlikely]]
      finish_atomic();
  }
  // Takes the machine's answer to `exit` into the log, for the instruction's next execution. For port, MMIO, MSR and
  // hypercall exits; others owe nothing.
  void take_answer();
  // MMIO piece of `size` 1, 2, 4, 8 at `gpa`, the same way.
  u64 mmio_load(u64 gpa, unsigned size);
  void mmio_store(u64 gpa, unsigned size, u64 value);

  // ---- debug (cpu/debug.cc): DR7 breakpoints and single-step
  bool debug_active() const { return debug_active_; }  // TF or an enabled DR7 breakpoint: run in the interpreter only
  // Before an instruction: instruction breakpoints. After: single step and data breakpoints noted by load/store. Raises
  // #DB.
  void check_instruction_breakpoint();
  std::optional<Fault> debug_trap_after(bool tf_before);
  void note_data_access(u64 linear, unsigned size, Access access);

  // ---- x87 and vector state (simd/state.cc)
  void spill_fpu();           // host registers -> s.xsave, host set to its defaults; no-op when not live
  void fill_fpu();            // s.xsave -> host registers
  u64 simd_features = 0;      // simd/: what the CPU model has of it, one bit each; 0 = not looked up yet
  u64 interp_extensions = 0;  // interp/extensions.h: likewise, of the integer instructions

  // ---- a guest without privilege (engine/deprivileged.h): no IDT, and two sets of page tables. Its kernel's data are
  // in the TLB space kSupervisorAc, walked from CR3; its users' in kUser, from `user_root`; both need U in every entry.
  // Descriptor tables are read as kSupervisor, from CR3.
  bool deprivileged = false;
  GuestMode guest_mode = GuestMode::kKernel;
  u64 user_root = 0;
  Trap trap;
  // While one instruction is run with its writes to the page `redirect_linear` going to `redirect_host`.
  u64 redirect_linear = kNoTag;
  std::byte* redirect_host = nullptr;
  bool try_load_segment(Seg seg, u16 selector);  // false: fault; nothing has changed
  bool try_load_code_and_stack(u16 cs, u16 ss);  // the same
  void set_flat_code_and_stack(u16 cs, u16 ss);  // ring 3, 64-bit
  bool try_copy_in(u64 linear, std::span<std::byte> out);
  bool try_copy_out(u64 linear, std::span<const std::byte> in);
  bool try_set_xcr0(u64 value);
  bool try_read_msr(u32 msr, u64& value);  // an MSR that is the machine's is refused
  bool try_write_msr(u32 msr, u64 value);

  // ---- caches of translated code: installed by the translator
  // Called when guest code on a physical page may have changed or its mapping went away.
  class CodeObserver {
   public:
    virtual ~CodeObserver() = default;
    // This vCPU's translations of these bytes, which lie on one page, are stale. False: it has none of that page left.
    virtual bool code_written(u64 gpa, u64 size) = 0;
    virtual void mappings_changed(bool global) = 0;  // TLB flush: cached linear->code lookups are stale
    virtual void mapping_changed(u64 linear) = 0;    // INVLPG
  };
  CodeObserver* code_observer = nullptr;

  std::unique_ptr<Lapic> lapic;
  Exit exit;  // the exit being handed out or answered

  const CpuFeatures features;

 private:
  friend class CpuTestPeer;
  friend class StackCursor;

  // mmu/
  struct Piece {                // one page's part of an access
    std::byte* host = nullptr;  // nullptr: not RAM
    u64 gpa = 0;
    bool code = false;  // store: code_written() is owed
  };
  struct FetchEntry {
    u64 tag = kNoTag;  // linear page | 1 for user
    u64 gpa_page = 0;
    std::byte* host = nullptr;
    u64 generation = 0;
    bool global = false;
  };
  static constexpr unsigned kFetchEntries = 512;
  static constexpr unsigned kFillLog = 384;

  // Entries that lost their slot to another page lately: pages that meet in a slot would else be walked to and fro.
  struct Victim {
    TlbEntry entry{kNoTag, kNoTag, 0, 0};
    TlbSpace space = TlbSpace::kSupervisor;
  };
  static constexpr unsigned kVictims = 8;
  std::byte* take_back(TlbSpace space, u64 linear, Access access);
  void keep_victim(TlbSpace space, const TlbEntry& entry);

  Translation walk_in(u64 linear, Access access, TlbSpace space, bool probe_only);
  Translation identity(u64 linear) const;
  Piece resolve(TlbSpace space, u64 linear, Access access);
  Piece fill_entry(TlbSpace space, u64 linear, Access access, const Translation& translation);
  void log_fill(TlbSpace space, TlbEntry& entry, unsigned slot);
  bool owes_settling(TlbSpace space, u64 linear) const;
  void settle_direct_writes();
  void note_large_page(u64 linear, u64 page_size);
  bool large_page_near(u64 linear) const;
  void drop_large_page(u64 linear);
  u64 load_in(TlbSpace space, u64 linear, unsigned size);
  void store_in(TlbSpace space, u64 linear, unsigned size, u64 value);
  u64 load_slow(TlbSpace space, u64 linear, unsigned size);
  void store_slow(TlbSpace space, u64 linear, unsigned size, u64 value);
  void read_piece(const Piece& piece, std::byte* out, unsigned length);
  void write_piece(const Piece& piece, const std::byte* in, unsigned length);
  u64 next_page(u64 linear) const;  // first byte of the following page, wrapping at 4 GiB outside long mode
  TlbSpace system_space() const;
  TlbSpace space_for(unsigned cpl) const;
  bool smap_active() const;
  u64 fetch_tag(u64 linear) const;
  FetchEntry& fetch_slot(u64 tag);
  bool still_holds(const FetchEntry& entry, u64 tag) const;
  const FetchEntry& fetch_entry(u64 linear);
  u64 fetch_limit(u64 linear) const;
  bool on_data_breakpoint_page(u64 linear) const;
  unsigned accessible_dr(unsigned dr);
  void finish_atomic();
  bool check_pdptes(u64 cr3) const;

  // cpu/segment.cc
  u64 linear_in(const Segment& segment, bool stack, bool wide, u64 offset, unsigned size, Access access, u32 error);
  Descriptor read_descriptor(u16 selector, Vector vector);
  Descriptor read_system_descriptor(u16 selector, Vector vector);
  void mark_accessed(Descriptor& descriptor);
  void set_segment(Seg seg, const Descriptor& descriptor, u16 selector);
  void set_null_segment(Seg seg, u16 selector);
  void load_stack_segment(u16 selector);

  // cpu/transfer.cc, cpu/iret.cc
  bool real_addressing() const { return !protected_mode() || v8086(); }
  void check_code_target(const Descriptor& code, u64 offset, u32 error);
  void commit_code(Descriptor& code, u16 selector, unsigned cpl, u64 offset);
  Descriptor direct_code_target(u16 selector);
  Descriptor gate_code_target(const Descriptor& gate, u16 gate_selector, bool jump);
  void jump_through(const Descriptor& system, u16 selector, bool call, u64 return_rip);
  void call_gate(const Descriptor& gate, u16 selector, u64 return_rip);
  void inner_call(const Descriptor& gate, Descriptor& code, u64 return_rip);
  void return_outer(Descriptor& code, u16 cs, u64 rip, u16 ss, u64 rsp, u64 extra);
  Descriptor return_code_target(u16 cs);
  void drop_inner_data_segments();
  void iret_real(unsigned size);
  void iret_to_v8086(u64 rip, u16 cs, u64 flags, class StackCursor& stack);
  void iret_protected(unsigned size);
  bool iret_in_place();
  const void* at_hand(TlbSpace space, u64 linear, unsigned size) const;
  bool is_loaded(Seg seg, u16 selector) const;
  void apply_iret_flags(u64 flags, unsigned size, unsigned old_cpl);

  // cpu/exception.cc
  struct Event {
    u8 vector = 0;
    bool has_error = false;
    u32 error = 0;
    u64 address = 0;
    bool software = false;     // INT n, INT3, INTO: DPL of the gate counts
    bool fault_class = false;  // RF is set in the saved flags
    u64 return_rip = 0;
  };
  StepResult deliver_event(Event event);
  bool try_enter(const Event& event);
  void enter_handler(const Event& event);
  void enter_real(const Event& event);
  void enter_legacy(const Event& event);
  void enter_long(const Event& event);
  void enter_legacy_gate(const Event& event, const Descriptor& gate);
  void enter_legacy_inner(const Event& event, const Descriptor& gate, Descriptor& code);
  void enter_legacy_same(const Event& event, const Descriptor& gate, Descriptor& code, unsigned cpl);
  Descriptor handler_code(const Descriptor& gate);
  u64 saved_flags(const Event& event) const;
  void flags_after_entry(bool interrupt_gate);
  struct StackTarget {
    u16 ss = 0;
    u64 sp = 0;
  };
  StackTarget inner_stack(unsigned cpl);
  Descriptor inner_stack_segment(u16 ss, unsigned cpl);
  u64 tss_field(unsigned offset, unsigned size);
  bool tss_is_32() const { return (tss_type() & 8) != 0; }
  unsigned tss_type() const { return s.tr.attributes & 0xf; }

  // cpu/task.cc
  enum class TaskSwitch : u8 { kJump, kCall, kIret, kGate };
  void task_gate(const Descriptor& gate, TaskSwitch kind, const Event* event, u64 return_rip);
  void task_switch(u16 selector, TaskSwitch kind, const Event* event, u64 return_rip);
  struct Task;
  u64 next_instruction();  // address of the one behind s.rip's
  Descriptor new_task(u16 selector, TaskSwitch kind);
  void set_busy(u64 descriptor, bool busy);
  Task read_task(const Descriptor& tss);
  void save_task(u64 return_rip, bool clear_nt);
  void load_task(const Task& task);
  void load_task_ldt(u16 selector);
  void load_task_code(u16 selector);
  void load_task_segment(Seg seg, u16 selector);

  // cpu/control.cc, cpu/msr.cc
  void write_cr0(u64 value);
  void write_cr3(u64 value);
  void write_cr4(u64 value);
  void write_efer(u64 value);
  void update_long_mode(u64 new_cr0);
  void write_tsc(u64 value);
  u64 unknown_msr_read(u32 index);
  void unknown_msr_write(u32 index, u64 value);
  bool read_mtrr(u32 index, u64& value) const;
  bool write_mtrr(u32 index, u64 value);
  u64* msr_slot(u32 index);
  bool check_msr_write(u32 index, u64 value);
  bool canonical(u64 address) const { return sign_extend_47(address) == address; }
  static u64 sign_extend_47(u64 a) { return static_cast<u64>(static_cast<i64>(a << 16) >> 16); }
  void set_flags(u64 value);  // with all that follows from them
  void set_flat_segment(Seg seg, u16 selector, unsigned dpl, bool code, bool wide);

  // While it lives, what is not RAM reads as all ones and swallows writes, and no data breakpoint is hit.
  class NoExits {
   public:
    explicit NoExits(Cpu& cpu) : cpu_{cpu}, outer_{cpu.no_exit_}, hits_{cpu.data_breakpoints_hit_} {
      cpu_.no_exit_ = true;
    }
    ~NoExits() {
      cpu_.no_exit_ = outer_;
      cpu_.data_breakpoints_hit_ = hits_;
    }
    NoExits(const NoExits&) = delete;

   private:
    Cpu& cpu_;
    const bool outer_;
    const u32 hits_;
  };

  // cpu/io.cc
  bool next_answer(u64& value);
  void note_port_access(u16 port, unsigned size);

  [[noreturn]] void abandon(Escape kind);
  StepResult take_init();
  void start_ap(u8 vector);
  void power_on_msrs();

  bool owns_state_ = false;
  bool debug_active_ = false;
  bool data_breakpoints_ = false;  // DR7 enables one
  u32 data_breakpoints_hit_ = 0;   // DR6 bits
  i8 step_override_ = -1;          // what debug_trap_after() takes for TF instead: SYSCALL, SYSRET, INT
  bool keep_rf_ = false;           // the instruction loaded RF: it is for the next one
  bool no_exit_ = false;           // event delivery, task switch: nothing could be re-executed, so no exits
  bool nmi_latched_ = false;
  u32 ext_ = 0;  // EXT bit of error codes raised now
  u64 atomic_code_page_ = ~u64{0};

  std::array<Victim, kVictims> victims_{};
  unsigned next_victim_ = 0;
  std::array<u16, kFillLog> fill_log_{};
  unsigned fill_count_ = 0;
  bool fill_overflow_ = false;
  std::array<FetchEntry, kFetchEntries> fetch_cache_{};
  u64 generation_ = 1, global_generation_ = 1;
  std::array<u64, 64> large_filter_{};  // hashed 2 MiB regions in which an entry of a large page was made
  u64 gbyte_filter_ = 0;                // the same for 1 GiB

  std::array<u64, 16> mtrr_variable_{};
  std::array<u64, 11> mtrr_fixed_{};
  u64 debug_ctl_ = 0, hwcr_ = 0, syscfg_ = 0, mcg_status_ = 0;
};

// Runs `body` (a statement) with faults and exits caught: afterwards cpu.escape_kind says whether it was abandoned.
//   BH_GUARD(cpu) { body }
// expands to setjmp; locals changed in the body must be volatile or not used after an escape.
class GuardScope {
 public:
  explicit GuardScope(Cpu& cpu) : cpu_{cpu}, outer_{cpu.escape} {
    cpu.escape_kind = Escape::kNone;
    cpu.escape = &buffer[0];
  }
  ~GuardScope() { cpu_.escape = outer_; }
  GuardScope(const GuardScope&) = delete;
  jmp_buf buffer;

 private:
  Cpu& cpu_;
  __jmp_buf_tag* outer_;
};
#define BH_GUARD(cpu) if (::bulkhead::engine::dbt::GuardScope bh_guard{cpu}; _setjmp(bh_guard.buffer) == 0)

}  // namespace bulkhead::engine::dbt
