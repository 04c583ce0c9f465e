// Page walks [SDM-3A §4]. Permission is judged first, then A and D are set by compare-and-swap on what was judged; if
// another vCPU changed an entry meanwhile the walk starts again.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u32 kErrorPresent = 1, kErrorWrite = 2, kErrorUser = 4, kErrorReserved = 8, kErrorFetch = 16;
constexpr u64 kPresent = 1, kWritable = 2, kUserPage = 4, kAccessed = 0x20, kDirty = 0x40, kLarge = 0x80,
              kGlobal = 0x100, kNoExecute = u64{1} << 63;
constexpr u64 kAddress = 0x000ffffffffff000;

enum class Format : u8 { k32, kPae, k4Level };

struct Rules {
  Format format;
  bool user, write, fetch;
  bool nxe, wp, smep, smap, pse;  // smap: supervisor data accesses to user pages fault
};

struct Step {
  std::byte* host = nullptr;  // nullptr: the entry is not RAM, and reads as all ones
  u64 value = 0;
};

unsigned entry_size(Format format) { return format == Format::k32 ? 4 : 8; }
unsigned top_level(Format format) { return format == Format::k4Level ? 4 : format == Format::kPae ? 3 : 2; }
unsigned level_shift(Format format, unsigned level) {
  return format == Format::k32 ? 12 + 10 * (level - 1) : 12 + 9 * (level - 1);
}
unsigned index_of(Format format, unsigned level, u64 linear) {
  const unsigned width = format == Format::k32 ? 10 : (format == Format::kPae && level == 3) ? 2 : 9;
  return static_cast<unsigned>(linear >> level_shift(format, level)) & ((1u << width) - 1);
}

u64 read_entry(const std::byte* at, Format format) {
  return format == Format::k32 ? __atomic_load_n(reinterpret_cast<const u32*>(at), __ATOMIC_ACQUIRE)
                               : __atomic_load_n(reinterpret_cast<const u64*>(at), __ATOMIC_ACQUIRE);
}

bool swap_entry(std::byte* at, Format format, u64 expected, u64 desired) {
  if (format == Format::k32) {
    u32 old = static_cast<u32>(expected);
    return __atomic_compare_exchange_n(reinterpret_cast<u32*>(at), &old, static_cast<u32>(desired), false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
  }
  return __atomic_compare_exchange_n(reinterpret_cast<u64*>(at), &expected, desired, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED);
}

bool is_large(const Rules& rules, const CpuFeatures& features, unsigned level, u64 entry) {
  if (!(entry & kLarge)) return false;
  if (rules.format == Format::k32) return level == 2 && rules.pse;
  return level == 2 || (level == 3 && rules.format == Format::k4Level && features.gbyte_pages);
}

// Bits that must be zero in a present entry [SDM-3A tables 4-4 to 4-20].
u64 reserved_bits(const Rules& rules, const CpuFeatures& features, unsigned level, bool large) {
  if (rules.format == Format::k32) {
    if (!large) return 0;
    if (!features.pse36) return 0x3fe000;
    const unsigned high = features.physical_bits < 40 ? features.physical_bits - 32u : 8u;  // address bits in 20:13
    return 0x3fe000 & ~(((u64{1} << high) - 1) << 13);
  }
  u64 reserved = features.reserved_address_bits();
  if (rules.format == Format::kPae) {
    if (level == 3) return reserved | 0xfff00000000001e6;
    reserved |= 0x7ff0000000000000;
  }
  if (!rules.nxe) reserved |= kNoExecute;
  if (level == 4 || (level == 3 && !large)) reserved |= kLarge;
  if (large) reserved |= level == 3 ? 0x3fffe000 : 0x1fe000;
  return reserved;
}

u64 large_base(const Rules& rules, unsigned level, u64 entry) {
  if (rules.format == Format::k32) return (entry & 0xffc00000) | bits(entry, 20, 13) << 32;
  return entry & kAddress & ~((u64{1} << level_shift(rules.format, level)) - 1);
}

bool allowed(const Rules& rules, const Cpu::Translation& t) {
  if (rules.user && !t.user) return false;
  if (rules.fetch) return t.executable && (rules.user || !rules.smep || !t.user);
  if (!rules.user && t.user && rules.smap) return false;
  return !rules.write || t.writable || (!rules.user && !rules.wp);
}

u32 error_bits(const Rules& rules) {
  return (rules.write ? kErrorWrite : 0) | (rules.user ? kErrorUser : 0) |
         (rules.fetch && (rules.nxe || rules.smep) ? kErrorFetch : 0);
}

class Walker {
 public:
  Walker(const SharedState& shared, const CpuFeatures& features, const Rules& rules, u64 cr3)
      : shared_{shared}, features_{features}, rules_{rules}, cr3_{cr3} {}

  // False when an entry changed under our hands: run again.
  bool run(u64 linear, bool set_bits, Cpu::Translation& t) {
    t = {};
    count_ = 0;
    if (!descend(linear, t)) return true;
    if (!allowed(rules_, t)) {
      t.error = error_bits(rules_) | kErrorPresent;
      return true;
    }
    t.ok = true;
    return !set_bits || mark(t);
  }

 private:
  bool descend(u64 linear, Cpu::Translation& t) {
    t.user = t.writable = t.executable = true;
    u64 table = first_table();
    for (unsigned level = top_level(rules_.format);; --level) {
      const u64 at = table + u64{index_of(rules_.format, level, linear)} * entry_size(rules_.format);
      std::byte* const page = shared_.ram(at & ~u64{0xfff});
      std::byte* const host = page == nullptr ? nullptr : page + (at & 0xfff);
      const u64 entry =
          host == nullptr ? ~u64{0} >> (rules_.format == Format::k32 ? 32 : 0) : read_entry(host, rules_.format);
      if (!(entry & kPresent)) {
        t.error = error_bits(rules_);
        return false;
      }
      const bool large = is_large(rules_, features_, level, entry);
      if (entry & reserved_bits(rules_, features_, level, large)) {
        t.error = error_bits(rules_) | kErrorPresent | kErrorReserved;
        return false;
      }
      const bool pdpte = rules_.format == Format::kPae && level == 3;  // has no permissions and no A
      if (!pdpte) note_entry(host, entry, t);
      if (large || level == 1) {
        finish(linear, level, large, entry, t);
        return true;
      }
      table = entry & (rules_.format == Format::k32 ? 0xfffff000 : kAddress);
    }
  }

  u64 first_table() const {
    if (rules_.format == Format::kPae) return cr3_ & 0xffffffe0;
    return cr3_ & (rules_.format == Format::k32 ? 0xfffff000 : kAddress);
  }

  void note_entry(std::byte* host, u64 entry, Cpu::Translation& t) {
    t.user = t.user && (entry & kUserPage);
    t.writable = t.writable && (entry & kWritable);
    if (rules_.format != Format::k32 && rules_.nxe && (entry & kNoExecute)) t.executable = false;
    steps_[count_++] = {host, entry};
  }

  void finish(u64 linear, unsigned level, bool large, u64 entry, Cpu::Translation& t) {
    t.page_size = u64{1} << (large ? level_shift(rules_.format, level) : 12);
    const u64 base =
        large ? large_base(rules_, level, entry) : entry & (rules_.format == Format::k32 ? 0xfffff000 : kAddress);
    t.gpa = base | (linear & (t.page_size - 1));
    t.global = entry & kGlobal;
    t.dirty = entry & kDirty;
  }

  bool mark(Cpu::Translation& t) {
    for (unsigned i = 0; i < count_; ++i) {
      const bool leaf = i + 1 == count_;
      const u64 wanted = steps_[i].value | kAccessed | (leaf && rules_.write ? kDirty : 0);
      if (wanted == steps_[i].value || steps_[i].host == nullptr) continue;
      if (!swap_entry(steps_[i].host, rules_.format, steps_[i].value, wanted)) return false;
    }
    t.dirty = t.dirty || rules_.write;
    return true;
  }

  const SharedState& shared_;
  const CpuFeatures& features_;
  const Rules& rules_;
  const u64 cr3_;
  Step steps_[4];
  unsigned count_ = 0;
};

}  // namespace

Cpu::Translation Cpu::identity(u64 linear) const {
  Translation t;
  t.gpa = linear & 0xffffffff;
  t.page_size = kPageSize;
  t.user = t.writable = t.executable = t.dirty = t.ok = true;
  return t;
}

Cpu::Translation Cpu::walk_in(u64 linear, Access access, TlbSpace space, bool probe_only) {
  if (!(s.cr0 & kCr0Pg)) return identity(linear);
  Rules rules{};
  rules.format = long_mode() ? Format::k4Level : (s.cr4 & kCr4Pae) ? Format::kPae : Format::k32;
  rules.user = space == TlbSpace::kUser || (deprivileged && space != TlbSpace::kSupervisor);
  rules.write = access == Access::kWrite;
  rules.fetch = access == Access::kExecute;
  rules.nxe = (s.efer & kEferNxe) && rules.format != Format::k32;
  rules.wp = s.cr0 & kCr0Wp;
  rules.smep = s.cr4 & kCr4Smep;
  rules.smap = space == TlbSpace::kSupervisor;
  rules.pse = s.cr4 & kCr4Pse;
  Walker walker{shared, features, rules, deprivileged && space == TlbSpace::kUser ? user_root : s.cr3};
  Translation t;
  // Guests that rewrite their tables without pause only slow themselves: after some tries A and D stay as they are.
  for (unsigned tries = 0; tries < 64; ++tries)
    if (walker.run(linear, !probe_only, t)) break;
  t.global = deprivileged ? linear >> 47 != 0 : t.global && (s.cr4 & kCr4Pge);
  return t;
}

Cpu::Translation Cpu::walk(u64 linear, Access access, bool user, bool probe_only) {
  return walk_in(linear, access, user ? TlbSpace::kUser : space_for(0), probe_only);
}

// The PDPTEs are read at each walk rather than held; what loading them must refuse is checked when CR3 is loaded.
bool Cpu::check_pdptes(u64 cr3) const {
  for (unsigned i = 0; i < 4; ++i) {
    const u64 at = (cr3 & 0xffffffe0) + 8 * i;
    const std::byte* const page = shared.ram(at & ~u64{0xfff});
    const u64 entry = page == nullptr ? ~u64{0} : read_entry(page + (at & 0xfff), Format::kPae);
    if ((entry & kPresent) && (entry & (features.reserved_address_bits() | 0xfff00000000001e6))) return false;
  }
  return true;
}

}  // namespace bulkhead::engine::dbt
