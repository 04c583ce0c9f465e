// What a guest without privilege asks of its vCPU that may fault on the way: the fault ends here, as a "no".
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/host_copy.h"

namespace bulkhead::engine::dbt {

bool Cpu::try_load_segment(Seg seg, u16 selector) {
  BH_GUARD(*this) {
    load_segment(seg, selector);
    return true;
  }
  return false;
}

void Cpu::set_flat_code_and_stack(u16 cs, u16 ss) {
  set_flat_segment(kCs, cs, 3, true, true);
  set_flat_segment(kSs, ss, 3, false, false);
}

// A code segment may be loaded that is 64-bit or 32-bit; rings other than 3 cannot be, for the tables hold none.
bool Cpu::try_load_code_and_stack(u16 cs, u16 ss) {
  const Segment old_cs = s.seg[kCs];
  BH_GUARD(*this) {
    Descriptor code = read_descriptor(cs, kGp);
    if (is_null(cs) || !code.is_code() || !code.present() || code.dpl() != 3 || (code.long_mode() && code.big()))
      raise(kGp, error_of(cs));
    mark_accessed(code);
    set_segment(kCs, code, cs);
    if (is_null(ss) && code_size() == CodeSize::k64) {
      set_null_segment(kSs, ss);
      return true;
    }
    load_stack_segment(ss);
    return true;
  }
  s.seg[kCs] = old_cs;
  return false;
}

bool Cpu::try_copy_in(u64 linear_start, std::span<std::byte> out) {
  const NoExits no_exits{*this};
  BH_GUARD(*this) {
    for (u64 done = 0; done < out.size();) {
      const u64 at = linear_start + done;
      if (!canonical(at)) raise(kGp, 0);
      const u64 in_page = kPageSize - (at & 0xfff);
      const unsigned length = static_cast<unsigned>(out.size() - done < in_page ? out.size() - done : in_page);
      load_bytes(at, out.data() + done, length);
      done += length;
    }
    return true;
  }
  return false;
}

bool Cpu::try_copy_out(u64 linear_start, std::span<const std::byte> in) {
  const NoExits no_exits{*this};
  BH_GUARD(*this) {
    for (u64 done = 0; done < in.size();) {
      const u64 at = linear_start + done;
      if (!canonical(at)) raise(kGp, 0);
      const u64 in_page = kPageSize - (at & 0xfff);
      const unsigned length = static_cast<unsigned>(in.size() - done < in_page ? in.size() - done : in_page);
      store_bytes(at, in.data() + done, length);
      done += length;
    }
    return true;
  }
  return false;
}

bool Cpu::try_set_xcr0(u64 value) {
  BH_GUARD(*this) {
    write_xcr0(value);
    return true;
  }
  return false;
}

bool Cpu::try_read_msr(u32 msr, u64& value) {
  BH_GUARD(*this) {
    value = read_msr(msr);
    return true;
  }
  return false;
}

bool Cpu::try_write_msr(u32 msr, u64 value) {
  BH_GUARD(*this) {
    write_msr(msr, value);
    return true;
  }
  return false;
}

}  // namespace bulkhead::engine::dbt
