// Linear addresses, descriptor loads and segment registers [SDM-3A §3, §5].
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

// ---- addresses

u64 Cpu::linear_in(const Segment& segment, bool stack, bool wide, u64 offset, unsigned size, Access access, u32 error) {
  const auto refuse = [&]() { stack ? raise(kSsFault, error) : raise(kGp, 0); };
  if (wide) {
    const u64 at = offset + (&segment == &s.seg[kFs] || &segment == &s.seg[kGs] ? segment.base : 0);
    if (!canonical(at) || !canonical(at + size - 1)) refuse();
    return at;
  }
  if (segment.unusable()) refuse();
  if (!real_addressing()) {
    const bool code = segment.attributes & 8;
    if (access == Access::kWrite && (code || !(segment.attributes & 2))) raise(kGp, 0);
    if (access == Access::kRead && code && !(segment.attributes & 2)) raise(kGp, 0);
  }
  const u64 last = offset + size - 1;
  const bool expand_down = (segment.attributes & 0xc) == 4 && protected_mode() && !v8086();
  if (expand_down) {
    if (offset <= segment.limit || last > (segment.big() ? 0xffffffff : 0xffff)) refuse();
  } else if (last > segment.limit) {
    refuse();
  }
  return (segment.base + offset) & 0xffffffff;
}

u64 Cpu::linear(Seg seg, u64 offset, unsigned size, Access access) {
  return linear_in(s.seg[seg], seg == kSs, code_size() == CodeSize::k64, offset, size, access, 0);
}

u64 Cpu::effective_address(const Insn& insn) const {
  const MemoryRef& mem = insn.mem;
  u64 at = static_cast<u64>(mem.disp);
  if (mem.base == kRipBase) {
    at += s.rip + insn.length;
  } else if (mem.base != kNoRegister) {
    at += s.gpr[mem.base & 15];
  }
  if (mem.index != kNoRegister) at += s.gpr[mem.index & 15] * mem.scale;
  return at & mask_for_size(insn.address_size);
}

u64 Cpu::linear_of(const Insn& insn, unsigned size, Access access) {
  return linear(static_cast<Seg>(insn.mem.segment), effective_address(insn), size, access);
}

// ---- descriptors

// Beyond the table's limit: `vector` with the selector.
Descriptor Cpu::read_descriptor(u16 selector, Vector vector) {
  const u32 error = error_of(selector) | ext_;
  const bool local = selector & 4;
  if (local && s.ldtr.unusable()) raise(vector, error);
  const u64 base = local ? s.ldtr.base : s.gdtr.base;
  const u64 limit = local ? s.ldtr.limit : s.gdtr.limit;
  const u64 offset = selector & 0xfff8u;
  if (offset + 7 > limit) raise(vector, error);
  Descriptor d;
  d.address = base + offset;
  d.low = load_system(d.address, 8);
  return d;
}

// System descriptors are twice as long in long mode.
Descriptor Cpu::read_system_descriptor(u16 selector, Vector vector) {
  Descriptor d = read_descriptor(selector, vector);
  if (!long_mode() || !d.is_system()) return d;
  const u64 limit = (selector & 4) ? s.ldtr.limit : s.gdtr.limit;
  if ((selector & 0xfff8u) + u64{15} > limit) raise(vector, error_of(selector) | ext_);
  d.high = load_system(d.address + 8, 8);
  if (bits(d.high, 44, 40) != 0)
    raise(vector, error_of(selector) | ext_);  // the second half must not pass for a descriptor
  d.high &= 0xffffffff;
  return d;
}

void Cpu::mark_accessed(Descriptor& d) {
  if (d.accessed()) return;
  d.low |= u64{1} << 40;
  store_system(d.address + 5, 1, bits(d.low, 47, 40));
}

void Cpu::set_segment(Seg seg, const Descriptor& d, u16 selector) { s.seg[seg] = d.segment(selector); }

void Cpu::set_null_segment(Seg seg, u16 selector) {
  s.seg[seg] = {};
  s.seg[seg].selector = selector;
  s.seg[seg].attributes = static_cast<u16>(kUnusable | (seg == kSs ? (selector & 3u) << 5 : 0));
}

void Cpu::set_real_mode_segment(Seg seg, u16 selector) {
  Segment& segment = s.seg[seg];
  segment.selector = selector;
  segment.base = u64{selector} << 4;
  if (v8086()) {
    segment.limit = 0xffff;
    segment.attributes = 0xf3;
    return;
  }
  // Real mode keeps the limit (that is how "unreal mode" works) but not rights that would forbid anything.
  if (segment.unusable()) segment.limit = 0xffff;
  const u16 wide = seg == kCs ? 0 : segment.attributes & 0xc00;
  segment.attributes = static_cast<u16>(0x93 | wide);
}

void Cpu::set_flat_segment(Seg seg, u16 selector, unsigned dpl, bool code, bool wide) {
  Segment& segment = s.seg[seg];
  segment.selector = selector;
  segment.base = 0;
  segment.limit = 0xffffffff;
  const unsigned size = !code || !wide ? 0xc00 : 0xa00;  // G with D/B, or with L
  segment.attributes = static_cast<u16>(size | 0x90 | dpl << 5 | (code ? 0xb : 3));
}

// ---- loads

void Cpu::load_stack_segment(u16 selector) {
  const u32 error = error_of(selector) | ext_;
  if (is_null(selector)) {
    if (code_size() != CodeSize::k64 || s.cpl == 3 || rpl_of(selector) != s.cpl) raise(kGp, ext_);
    return set_null_segment(kSs, selector);
  }
  Descriptor d = read_descriptor(selector, kGp);
  if (rpl_of(selector) != s.cpl || !d.is_writable_data() || d.dpl() != s.cpl) raise(kGp, error);
  if (!d.present()) raise(kSsFault, error);
  mark_accessed(d);
  set_segment(kSs, d, selector);
}

void Cpu::load_segment(Seg seg, u16 selector) {
  if (real_addressing()) return set_real_mode_segment(seg, selector);
  if (seg == kSs) return load_stack_segment(selector);
  if (is_null(selector)) return set_null_segment(seg, selector);
  const u32 error = error_of(selector) | ext_;
  Descriptor d = read_descriptor(selector, kGp);
  if (!d.is_readable()) raise(kGp, error);
  if (!d.is_conforming() && (rpl_of(selector) > d.dpl() || s.cpl > d.dpl())) raise(kGp, error);
  if (!d.present()) raise(kNp, error);
  mark_accessed(d);
  set_segment(seg, d, selector);
}

void Cpu::load_ldt(u16 selector) {
  if (is_null(selector)) {
    s.ldtr = {};
    s.ldtr.selector = selector;
    s.ldtr.attributes = kUnusable;
    return;
  }
  const u32 error = error_of(selector) | ext_;
  if (selector & 4) raise(kGp, error);
  const Descriptor d = read_system_descriptor(selector, kGp);
  if (!d.is_system() || d.type() != kLdtType) raise(kGp, error);
  if (!d.present()) raise(kNp, error);
  if (long_mode() && !canonical(d.base())) raise(kGp, error);
  s.ldtr = d.segment(selector);
}

void Cpu::load_tr(u16 selector) {
  const u32 error = error_of(selector) | ext_;
  if (is_null(selector)) raise(kGp, 0);
  if (selector & 4) raise(kGp, error);
  Descriptor d = read_system_descriptor(selector, kGp);
  if (!d.is_system() || (d.type() != kTss32 && (d.type() != kTss16 || long_mode()))) raise(kGp, error);
  if (!d.present()) raise(kNp, error);
  if (long_mode() && !canonical(d.base())) raise(kGp, error);
  d.low |= u64{2} << 40;  // busy
  store_system(d.address + 5, 1, bits(d.low, 47, 40));
  s.tr = d.segment(selector);
}

}  // namespace bulkhead::engine::dbt
