// SYSCALL/SYSRET [AMD-3, SDM-2B] and SYSENTER/SYSEXIT [SDM-2B]. Segments become flat without a look at the GDT.
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

// #UD for wrong modes is also ours: Intel's SYSCALL exists in 64-bit mode only, AMD's in compatibility and protected
// mode too.
void Cpu::syscall(u64 return_rip) {
  const bool from_64 = code_size() == CodeSize::k64;
  if (!(s.efer & kEferSce) || !protected_mode() || (!from_64 && !features.amd)) raise(kUd);
  const u16 cs = static_cast<u16>((s.star >> 32) & 0xfffc);
  if (long_mode()) {
    s.gpr[kRcx] = return_rip;
    s.gpr[kR11] = s.rflags & ~kRf;
    s.rip = from_64 ? s.lstar : s.cstar;
    set_flat_segment(kCs, cs, 0, true, true);
  } else {
    s.gpr[kRcx] = return_rip & 0xffffffff;
    s.rip = s.star & 0xffffffff;
    set_flat_segment(kCs, cs, 0, true, false);
  }
  set_flat_segment(kSs, static_cast<u16>(cs + 8), 0, false, false);
  update_cpl(0);
  const bool stepping = s.rflags & kTf;
  const u64 cleared = long_mode() ? s.sfmask | kRf : kVm | kIf | kRf;
  set_flags((s.rflags & ~cleared) | 2);
  if (stepping) step_override_ = (s.rflags & kTf) != 0;  // the trap goes by the new TF
}

void Cpu::sysret(unsigned operand_size) {
  if (!(s.efer & kEferSce) || !protected_mode() || (code_size() != CodeSize::k64 && !features.amd)) raise(kUd);
  if (s.cpl != 0) raise(kGp, 0);
  const bool to_64 = operand_size == 8;
  if (to_64 && !features.amd && !canonical(s.gpr[kRcx])) raise(kGp, 0);
  const u16 base = static_cast<u16>(s.star >> 48);
  set_flat_segment(kCs, static_cast<u16>((base + (to_64 ? 16 : 0)) | 3), 3, true, to_64);
  set_flat_segment(kSs, static_cast<u16>((base + 8) | 3), 3, false, false);
  s.rip = to_64 ? s.gpr[kRcx] : s.gpr[kRcx] & 0xffffffff;
  update_cpl(3);
  const bool stepping = s.rflags & kTf;
  if (long_mode()) {
    set_flags((s.gpr[kR11] & 0x3c7fd7) | 2);
  } else {
    set_flags(s.rflags | kIf);
  }
  if (stepping || (s.rflags & kTf)) step_override_ = (s.rflags & kTf) != 0;
}

void Cpu::sysenter() {
  if (long_mode() && features.amd) raise(kUd);
  if (!protected_mode() || (s.sysenter_cs & 0xfffc) == 0) raise(kGp, 0);
  const u16 cs = static_cast<u16>(s.sysenter_cs & 0xfffc);
  const bool wide = long_mode();
  set_flat_segment(kCs, cs, 0, true, wide);
  set_flat_segment(kSs, static_cast<u16>(cs + 8), 0, false, false);
  s.rip = wide ? s.sysenter_eip : s.sysenter_eip & 0xffffffff;
  s.gpr[kRsp] = wide ? s.sysenter_esp : s.sysenter_esp & 0xffffffff;
  update_cpl(0);
  set_flags(s.rflags & ~(kVm | kIf | kRf));
}

void Cpu::sysexit(unsigned operand_size) {
  if (long_mode() && features.amd) raise(kUd);
  if (!protected_mode() || s.cpl != 0 || (s.sysenter_cs & 0xfffc) == 0) raise(kGp, 0);
  const bool to_64 = operand_size == 8;
  if (to_64 && (!canonical(s.gpr[kRcx]) || !canonical(s.gpr[kRdx]))) raise(kGp, 0);
  const u64 mask = to_64 ? ~u64{0} : 0xffffffff;
  const u16 base = static_cast<u16>(s.sysenter_cs & 0xfffc);
  set_flat_segment(kCs, static_cast<u16>((base + (to_64 ? 32 : 16)) | 3), 3, true, to_64);
  set_flat_segment(kSs, static_cast<u16>((base + (to_64 ? 40 : 24)) | 3), 3, false, false);
  s.rip = s.gpr[kRdx] & mask;
  s.gpr[kRsp] = s.gpr[kRcx] & mask;
  update_cpl(3);
}

}  // namespace bulkhead::engine::dbt
