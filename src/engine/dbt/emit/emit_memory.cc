// Addresses, the software TLB's fast path, and where the flags are kept meanwhile.
#include <cstddef>
#include <cstring>

#include "base/bits.h"
#include "engine/dbt/cpu/flags.h"
#include "engine/dbt/emit/builder.h"

namespace bulkhead::engine::dbt {

using namespace Xbyak::util;

namespace {
constexpr u32 kFlagsOffset = offsetof(CpuState, jit_flags);

u32 segment_base_offset(u8 segment) {
  return static_cast<u32>(offsetof(CpuState, seg) + segment * sizeof(Segment) + offsetof(Segment, base));
}

u32 tlb_offset(TlbSpace space, u32 field) {
  return static_cast<u32>(offsetof(CpuState, tlb) + static_cast<u32>(space) * sizeof(TlbEntry) * kTlbEntries + field);
}
}  // namespace

void BlockBuilder::save_flags() {
  w_.mov(r10, rax);
  w_.lahf();
  w_.seto(al);
  w_.mov(dword[rsp + kFlagsOffset], eax);
  w_.mov(rax, r10);
  flags_in_memory_ = true;
}

void BlockBuilder::restore_flags() {
  w_.mov(r10, rax);
  w_.mov(eax, dword[rsp + kFlagsOffset]);
  w_.add(al, 0x7f);  // OF from bit 0
  w_.sahf();
  w_.mov(rax, r10);
  flags_in_host_ = true;
}

void BlockBuilder::flags_to_r9() {
  constexpr u64 kLow = kArithmeticFlags & ~kOf;
  w_.movzx(r9d, byte[rsp + kFlagsOffset + 1]);
  w_.and_(r9d, static_cast<u32>(kLow));
  w_.movzx(r10d, byte[rsp + kFlagsOffset]);
  w_.shl(r10d, 11);
  w_.or_(r9d, r10d);
  w_.mov(r10d, dword[rsp + static_cast<u32>(offsetof(CpuState, rflags))]);
  w_.and_(r10d, ~static_cast<u32>(kArithmeticFlags | kVm | kRf));
  w_.or_(r9d, r10d);
}

void BlockBuilder::want_flags(const Item& item) {
  const FlagEffect effect = flag_effect(item.insn, item.kind);
  // Bits that survive the instruction must be in the host's flags, for it writes only the others.
  const bool keeps_some = effect.writes != 0 && (item.live_after & ~effect.kills) != 0;
  if ((effect.reads != 0 || keeps_some) && !flags_in_host_) restore_flags();
}

void BlockBuilder::wrote_flags(const Item& item) {
  if (flag_effect(item.insn, item.kind).writes == 0) return;
  flags_in_host_ = true;
  flags_in_memory_ = false;
}

void BlockBuilder::register_to(int host, unsigned guest) {
  const int held = host_register(guest);
  if (held >= 0)
    w_.mov(Xbyak::Reg64{host}, Xbyak::Reg64{held});
  else
    w_.mov(Xbyak::Reg64{host}, ptr[rsp + state_offset_of_gpr(guest)]);
}

void BlockBuilder::store_guest(unsigned guest, int host) {
  const int held = host_register(guest);
  if (held >= 0)
    w_.mov(Xbyak::Reg64{held}, Xbyak::Reg64{host});
  else
    w_.mov(ptr[rsp + state_offset_of_gpr(guest)], Xbyak::Reg64{host});
}

void BlockBuilder::write_host_code(const HostCode& code) {
  for (unsigned i = 0; i < code.length; ++i) w_.db(code.bytes[i]);
}

// The effective address of the memory operand, truncated to the address size. Leaves flags alone. Uses R9, R10.
void BlockBuilder::address_to(int host, const Insn& insn, u64 next_rip) {
  const MemoryRef& mem = insn.mem;
  const bool narrow = insn.address_size == 4;
  const Xbyak::Reg64 target{host};
  if (mem.base == kRipBase || (mem.base == kNoRegister && mem.index == kNoRegister)) {
    u64 address = static_cast<u64>(mem.disp) + (mem.base == kRipBase ? next_rip : 0);
    if (narrow) address = static_cast<u32>(address);
    w_.mov(target, address);
    return;
  }
  Xbyak::RegExp expression;
  const auto reg_for = [&](u8 guest, const Xbyak::Reg64& scratch) {
    const int held = host_register(guest);
    if (held >= 0) return Xbyak::Reg64{held};
    w_.mov(scratch, ptr[rsp + state_offset_of_gpr(guest)]);
    return scratch;
  };
  if (mem.base != kNoRegister) expression = expression + reg_for(mem.base, r9);
  if (mem.index != kNoRegister) expression = expression + reg_for(mem.index, r10) * mem.scale;
  if (mem.index == kNoRegister && mem.disp == 0 && !narrow)
    w_.mov(target, Xbyak::Reg64{expression.getBase().getIdx()});
  else if (narrow)
    w_.lea(Xbyak::Reg32{host}, ptr[expression + static_cast<size_t>(mem.disp)]);
  else
    w_.lea(target, ptr[expression + static_cast<size_t>(mem.disp)]);
}

// The same in R8, plus FS or GS base.
void BlockBuilder::address_to_r8(const Insn& insn, u64 next_rip, bool with_segment) {
  r8_window_ = 0;
  address_to(8, insn, next_rip);
  if (with_segment && insn.mem.segment >= kFs) {
    w_.mov(r9, ptr[rsp + segment_base_offset(insn.mem.segment)]);
    w_.lea(r8, ptr[r8 + r9]);
  }
}

u8* BlockBuilder::jump_later() {
  w_.db(0xe9);
  w_.dd(0);
  return const_cast<u8*>(w_.getCurr());
}

u8* BlockBuilder::jump_later(u8 condition) {
  w_.db(0x0f);
  w_.db(0x80 | condition);
  w_.dd(0);
  return const_cast<u8*>(w_.getCurr());
}

void BlockBuilder::tlb_r8(u32 what, const Item& item) {
  const u32 size = what & kMissSize;
  const u32 tag = tlb_offset(request_.space,
                             (what & kMissWrite) != 0 ? offsetof(TlbEntry, write_tag) : offsetof(TlbEntry, read_tag));
  static_assert(sizeof(TlbEntry) == 32);
  if (size == 1)
    w_.mov(r10, r8);
  else
    w_.lea(r10, ptr[r8 + (size - 1)]);
  w_.mov(r9d, r8d);
  w_.shr(r9d, kPageShift - 5);
  w_.and_(r10, -static_cast<int>(kPageSize));
  w_.and_(r9d, (kTlbEntries - 1) << 5);
  w_.cmp(r10, ptr[rsp + r9 + tag]);
  u8* const miss = jump_later(kNotEqual);
  w_.add(r8, ptr[rsp + r9 + tlb_offset(request_.space, offsetof(TlbEntry, addend))]);
  r8_window_ = 0;
  cold_.push_back({.kind = Cold::Kind::kMiss,
                   .from = miss,
                   .back = w_.getCurr(),
                   .what = what | static_cast<u32>(item.rip - request_.rip) << kMissOffsetShift});
}

void BlockBuilder::emit_cold() {
  for (std::size_t i = 0; i < cold_.size(); ++i) {  // grows while we go
    const Cold cold = cold_[i];
    const i32 relative = static_cast<i32>(w_.getCurr() - cold.from);
    std::memcpy(cold.from - 4, &relative, sizeof relative);
    switch (cold.kind) {
      case Cold::Kind::kMiss:
        w_.mov(r9d, cold.what);
        w_.call(thunk(thunks_.miss));
        w_.jmp(cold.back, Xbyak::CodeGenerator::T_NEAR);
        break;
      case Cold::Kind::kSideExit:
        side_exit(cold);
        break;
      case Cold::Kind::kStub:
        stub(*cold.link);
        break;
      case Cold::Kind::kLeave:
        w_.mov(r8, request_.rip);
        w_.jmp(thunk(cold.leave_by), Xbyak::CodeGenerator::T_NEAR);
        break;
    }
  }
}

void BlockBuilder::side_exit(const Cold& cold) {
  if (cold.save_flags) {
    save_flags();
  } else if (cold.conditional && can_link(cold.target)) {  // the conditional jump itself is the link
    return stub(*link_at(cold.from, cold.target));
  }
  jump_to(cold.target);
}

void BlockBuilder::stub(Link& link) {
  link.stub = w_.getCurr() + to_executable_;
  w_.mov(r8, reinterpret_cast<u64>(&link));
  w_.jmp(thunk(thunks_.exit_link), Xbyak::CodeGenerator::T_NEAR);
}

Link* BlockBuilder::link_at(u8* site_end, u64 target) {
  const bool backward = target < end_rip_;  // as seen from the jump; it may close a loop that starts in this block
  Link* const link = cache_.allocate_array<Link>(1);
  *link = Link{.site = site_end - 4,
               .stub = nullptr,
               .site_end = site_end + to_executable_,
               .target_rip = target,
               .to = nullptr,
               .next_incoming = nullptr,
               .backward = backward,
               .loop_tries = backward && target + kMaxLoopSize > request_.rip ? kLoopTries : u8{0}};
  return link;
}

bool BlockBuilder::can_link(u64 target) const {
  return !crosses_page_ && align_down(target, kPageSize) == align_down(request_.rip, kPageSize);
}

// A direct transfer: through a link within the page, through the jump cache to another.
void BlockBuilder::jump_to(u64 target) {
  if (can_link(target)) {
    u8* const from = jump_later();
    cold_.push_back({.kind = Cold::Kind::kStub, .from = from, .link = link_at(from, target)});
    return;
  }
  const u32 entry =
      kTablesOffset + static_cast<u32>(offsetof(JitTables, jump)) +
      static_cast<u32>((static_cast<u32>(request_.space) * kJumpEntries + jump_index(target)) * sizeof(JumpEntry));
  w_.mov(r8, target);
  w_.cmp(r8, ptr[rsp + entry]);
  w_.jne(thunk(thunks_.exit_lookup));
  w_.jmp(ptr[rsp + entry + static_cast<u32>(offsetof(JumpEntry, code))]);
}

void BlockBuilder::jump_to_r8() {
  const u32 base = kTablesOffset + static_cast<u32>(offsetof(JitTables, jump)) +
                   static_cast<u32>(static_cast<u32>(request_.space) * kJumpEntries * sizeof(JumpEntry));
  static_assert(sizeof(JumpEntry) == 16);
  w_.imul(r9d, r8d, kJumpFactor);
  w_.shr(r9d, 32 - kJumpBits - 4);
  w_.and_(r9d, (kJumpEntries - 1) << 4);
  w_.cmp(r8, ptr[rsp + r9 + base]);
  w_.jne(thunk(thunks_.exit_lookup));
  w_.jmp(ptr[rsp + r9 + base + static_cast<u32>(offsetof(JumpEntry, code))]);
}

}  // namespace bulkhead::engine::dbt
