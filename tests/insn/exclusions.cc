#include "tests/insn/exclusions.h"

#include "engine/cpu_model.h"
#include "engine/dbt/simd/features.h"

namespace bulkhead::insn {
namespace {

bool mnemonic_allowed(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    // System calls, far control flow, segment registers: the process would not survive.
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INTO:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
    case ZYDIS_MNEMONIC_RDFSBASE:
    // Hypercalls and SVM, which a hypervisor under the host would answer.
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_VMRUN:
    case ZYDIS_MNEMONIC_VMLOAD:
    case ZYDIS_MNEMONIC_VMSAVE:
    case ZYDIS_MNEMONIC_STGI:
    case ZYDIS_MNEMONIC_CLGI:
    case ZYDIS_MNEMONIC_SKINIT:
    case ZYDIS_MNEMONIC_INVLPGA:
    case ZYDIS_MNEMONIC_VMFUNC:
    // Time, random numbers, identity; descriptor tables and what depends on them.
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPRU:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_WRPKRU:
    // Waits.
    case ZYDIS_MNEMONIC_MWAITX:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_UMWAIT:
    case ZYDIS_MNEMONIC_TPAUSE:
    case ZYDIS_MNEMONIC_MCOMMIT:
      return false;
    default:
      return true;
  }
}

// Also what CPUs do although CPUID, cut down by a hypervisor, does not say so.
bool category_allowed(const ZydisDecodedInstruction& insn) {
  switch (insn.meta.isa_set) {
    case ZYDIS_ISA_SET_SVM:
    case ZYDIS_ISA_SET_VTX:
    case ZYDIS_ISA_SET_SGX:
    case ZYDIS_ISA_SET_SGX_ENCLV:
    case ZYDIS_ISA_SET_SMX:
    case ZYDIS_ISA_SET_CET:
    case ZYDIS_ISA_SET_UINTR:
    case ZYDIS_ISA_SET_TDX:
    case ZYDIS_ISA_SET_SNP:
    case ZYDIS_ISA_SET_RTM:
    case ZYDIS_ISA_SET_MPX:
    case ZYDIS_ISA_SET_PT:
    case ZYDIS_ISA_SET_ENQCMD:
    case ZYDIS_ISA_SET_MOVDIR:
    case ZYDIS_ISA_SET_XSAVES:
    case ZYDIS_ISA_SET_INVPCID:
    case ZYDIS_ISA_SET_AMD_INVLPGB:
    case ZYDIS_ISA_SET_WAITPKG:
    case ZYDIS_ISA_SET_LWP:
    case ZYDIS_ISA_SET_KEYLOCKER:
    case ZYDIS_ISA_SET_PADLOCK_ACE:
    case ZYDIS_ISA_SET_PADLOCK_PHE:
    case ZYDIS_ISA_SET_PADLOCK_PMM:
    case ZYDIS_ISA_SET_PADLOCK_RNG:
      return false;
    default:
      return true;
  }
}

}  // namespace

bool may_run(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
  if (!mnemonic_allowed(insn.mnemonic) || !category_allowed(insn)) return false;
  if (insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return false;
  // PREFETCHW of a register: #UD for AMD, NOP for Intel.
  if (insn.opcode_map == ZYDIS_OPCODE_MAP_0F && insn.opcode == 0x0d && insn.raw.modrm.mod == 3) return false;
  // Reserved: a repeat prefix on these makes AMD's LOOPE of LOOPNE, as it was on the 8086.
  const bool loop = insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (insn.opcode == 0xe0 || insn.opcode == 0xe1);
  for (unsigned i = 0; loop && i < insn.raw.prefix_count; ++i)
    if ((insn.raw.prefixes[i].value & 0xfe) == 0xf2) return false;
  // XCHG R8, RAX, which Zydis 4.0 takes for PAUSE.
  if (insn.mnemonic == ZYDIS_MNEMONIC_PAUSE && (insn.attributes & ZYDIS_ATTRIB_HAS_REX)) return false;
  if (insn.mnemonic == ZYDIS_MNEMONIC_BSWAP && insn.operand_width == 16) return false;  // undefined result
  const bool double_shift = insn.mnemonic == ZYDIS_MNEMONIC_SHLD || insn.mnemonic == ZYDIS_MNEMONIC_SHRD;
  if (double_shift && insn.operand_width == 16) return false;  // undefined result for counts above 16
  for (unsigned i = 0; i < insn.operand_count; ++i) {
    if (operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER) {
      // FS is the process's own.
      if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY && operands[i].mem.segment == ZYDIS_REGISTER_FS) return false;
      continue;
    }
    const bool segment = ZydisRegisterGetClass(operands[i].reg.value) == ZYDIS_REGCLASS_SEGMENT;
    if (segment && (operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) return false;
  }
  return true;
}

Presence presence(const ZydisDecodedInstruction& insn) {
  using namespace engine::dbt;
  static const auto model = engine::make_cpu_model("host", 1);
  static const u64 model_features = model ? features_of_model(*model) : 0;
  static const u64 host_features = features_of_host();
  switch (insn.meta.isa_set) {
    case ZYDIS_ISA_SET_TBM:
    case ZYDIS_ISA_SET_AMX_TILE:
    case ZYDIS_ISA_SET_AMX_INT8:
    case ZYDIS_ISA_SET_AMX_BF16:
    case ZYDIS_ISA_SET_KNCE:
    case ZYDIS_ISA_SET_KNCV:
    case ZYDIS_ISA_SET_KNC_MISC:
      return Presence::kNowhere;
    case ZYDIS_ISA_SET_CLZERO:
      return model && model->has(0x80000008, 0, 'b', 0) ? Presence::kThere : Presence::kHidden;
    default:
      break;
  }
  const u64 needed = features_of_isa(insn.meta.isa_set);
  const bool simd = !(needed & feature_bit(Feature::kNever)) || insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
  if (!simd) return Presence::kThere;  // the integer sets, which every CPU model has as the host does
  if ((needed & ~model_features) == 0) return Presence::kThere;
  return (needed & ~host_features) == 0 ? Presence::kHidden : Presence::kNowhere;
}

}  // namespace bulkhead::insn
