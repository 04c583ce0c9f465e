// Privileged instructions that a PV kernel executes although it runs in ring 3: done for it where Xen does them.
#include <Zydis/Zydis.h>
#include <xen/errno.h>
#include <xen/xen.h>

#include "abi/xen/pv/call.h"

namespace bulkhead::abi::xen::pv {
namespace {

constexpr u64 kCr0Ts = 8, kCr0Fixed = 0x80050033;  // PG AM WP NE ET MP PE
constexpr u64 kCr4Allowed = 0x4070c;               // OSXSAVE, OSXMMEXCPT, OSFXSR, DE, TSD
constexpr u64 kCr4FsGsBase = 1u << 16;

enum Msr : u32 {
  kTsc = 0x10,
  kApicBase = 0x1b,
  kSpecCtrl = 0x48,
  kPredCmd = 0x49,
  kMicrocode = 0x8b,
  kArchCapabilities = 0x10a,
  kMiscEnable = 0x1a0,
  kPat = 0x277,
  kPlatformInfo = 0xce,
  kEfer = 0xc0000080,
  kStar = 0xc0000081,
  kLstar = 0xc0000082,
  kCstar = 0xc0000083,
  kSfmask = 0xc0000084,
  kFsBase = 0xc0000100,
  kGsBase = 0xc0000101,
  kHiddenGsBase = 0xc0000102,
  kTscAux = 0xc0000103
};
constexpr u64 kXensPat = 0x0000050100070406;
constexpr u64 kEferValue = 0xd01, kEferAutoIbrs = u64{1} << 21;  // NXE, LMA, LME, SCE; a promise that costs nothing

// The vCPU's own, in which nothing ever happens.
bool is_machine_check(u32 index) { return (index >= 0x179 && index <= 0x17b) || (index >= 0x400 && index < 0x480); }

struct Decoded {
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

bool decode(const std::byte* bytes, unsigned have, Decoded& out) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, have, &out.insn, out.operands));
}

unsigned register_id(const ZydisDecodedOperand& operand) {
  return static_cast<unsigned>(ZydisRegisterGetId(operand.reg.value));
}

u64 edx_eax(const std::array<u64, 16>& gpr) {
  return (gpr[engine::DeprivilegedCpu::kRdx] << 32) | (gpr[engine::DeprivilegedCpu::kRax] & 0xffffffff);
}

}  // namespace

// Xen's own prefix makes CPUID trap, so that the kernel sees what it may use [xen/arch-x86/xen.h XEN_EMULATE_PREFIX].
bool Guest::forced_cpuid(Cpu& cpu) {
  static constexpr std::array<u8, 7> kPrefixedCpuid{0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2};
  std::array<std::byte, 16> bytes;
  if (cpu.read_code(bytes) < kPrefixedCpuid.size()) return false;
  for (std::size_t i = 0; i < kPrefixedCpuid.size(); ++i)
    if (bytes[i] != std::byte{kPrefixedCpuid[i]}) return false;
  counters_[kEmulated].add();
  cpu.cpuid();
  cpu.rip() += kPrefixedCpuid.size();
  return true;
}

u64 Guest::guest_cr0(Cpu& cpu) { return kCr0Fixed | (cpu.task_switched() ? kCr0Ts : 0); }

bool Guest::write_cr(Cpu& cpu, unsigned index, u64 value) {
  switch (index) {
    case 0:
      if ((value ^ guest_cr0(cpu)) & ~kCr0Ts) return false;
      cpu.set_task_switched(value & kCr0Ts);
      return true;
    case 2:
      record(cpu).cr2 = value;
      domain_->set_cr2(cpu.index(), value);
      return true;
    case 3:
      return new_base(cpu, value >> kPageShift) == 0;
    case 4: {
      constexpr u64 kChangeable = kCr4Allowed | kCr4FsGsBase;
      cpu.set_cr4((cpu.cr4() & ~kChangeable) | (value & kChangeable));
      return true;
    }
    default:
      return false;
  }
}

bool Guest::read_msr(Cpu& cpu, u32 index, u64& value) {
  switch (index) {
    case kTsc:
      value = cpu.tsc();
      return true;
    case kFsBase:
      value = cpu.base(Cpu::kFs);
      return true;
    case kGsBase:
      value = cpu.base(Cpu::kGs);
      return true;
    case kHiddenGsBase:
      value = cpu.hidden_gs_base();
      return true;
    case kEfer:
      value = kEferValue | (record(cpu).auto_ibrs ? kEferAutoIbrs : 0);
      return true;
    case kPat:
      value = kXensPat;
      return true;
    case kMiscEnable:
      value = u64{1} | 1u << 11 | 1u << 12;  // fast strings; no branch trace, no PEBS
      return true;
    case kApicBase:
      value = 0xfee00000 | (cpu.index() == 0 ? 1u << 8 : 0);
      return true;
    case kPlatformInfo:
    case kMicrocode:  // no update that a guest could know of
      value = 0;
      return true;
    case kSpecCtrl:
    case kArchCapabilities:
      return cpu.read_msr(index, value);
    default:
      if (is_machine_check(index)) return cpu.read_msr(index, value);
      counters_[kUnknownMsrs].add();
      return false;
  }
}

bool Guest::write_msr(Cpu& cpu, u32 index, u64 value) {
  switch (index) {
    case kFsBase:
    case kGsBase:
    case kHiddenGsBase:
      if (!canonical(value)) return false;
      if (index == kHiddenGsBase)
        cpu.hidden_gs_base() = value;
      else
        cpu.set_base(index == kFsBase ? Cpu::kFs : Cpu::kGs, value);
      return true;
    case kTscAux:
      cpu.set_tsc_aux(value & 0xffffffff);
      return true;
    // A native kernel's way into the kernel. Ours are callbacks, so the values mean nothing.
    case kEfer:
      if ((value | kEferAutoIbrs) != (kEferValue | kEferAutoIbrs)) return false;
      record(cpu).auto_ibrs = value & kEferAutoIbrs;
      return true;
    case kStar:
    case kLstar:
    case kCstar:
    case kSfmask:
    case kMiscEnable:
    case kMicrocode:  // a zero has to be written before it is read [SDM-4 "Architectural MSRs"]
      return true;
    case kPat:
      return value == kXensPat;
    case kSpecCtrl:
    case kPredCmd:
      return cpu.write_msr(index, value);
    default:
      if (is_machine_check(index)) return cpu.write_msr(index, value);
      counters_[kUnknownMsrs].add();
      return false;
  }
}

i64 Guest::write_debug(Cpu& cpu, u64 index, u64 value) {
  switch (index) {
    case 0:
    case 1:
    case 2:
    case 3:
      if (!canonical(value) || !Call::allowed(value, 8)) return -XEN_EPERM;
      break;
    case 4:
    case 5:
      return -XEN_ENODEV;
    case 6:
      value = (value & 0xe00f) | 0xffff0ff0;
      break;
    case 7:
      // No I/O breakpoints, no general detect.
      for (unsigned i = 0; i < 4; ++i)
        if (((value >> (16 + 4 * i)) & 3) == 2) return -XEN_EPERM;
      value = (value & 0xffff03ff & ~(u64{1} << 13)) | 0x400;
      break;
    default:
      return -XEN_EINVAL;
  }
  cpu.set_debug_register(static_cast<unsigned>(index), value);
  return 0;
}

// False: the instruction faults as it would have.
bool Guest::emulate(Cpu& cpu, bool kernel) {
  std::array<std::byte, 16> bytes;
  const unsigned have = cpu.read_code(bytes);
  Decoded d;
  if (have == 0 || !cpu.in_64bit_code() || !decode(bytes.data(), have, d)) return false;
  auto& gpr = cpu.gpr();
  VcpuRecord& v = record(cpu);
  const bool io = v.iopl >= (kernel ? 1 : 3);
  bool done = false;
  switch (d.insn.mnemonic) {
    case ZYDIS_MNEMONIC_IN: {
      if (!io) break;
      // There are no ports: all ones. But a timer that stands at all ones is one that Linux watches for a while.
      const unsigned size = d.operands[0].size;
      const u64 port =
          d.operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? d.operands[1].imm.value.u : gpr[Cpu::kRdx] & 0xffff;
      if (port >= 0x40 && port <= 0x42)
        gpr[Cpu::kRax] &= ~u64{0xff};
      else if (size == 32)
        gpr[Cpu::kRax] = 0xffffffff;
      else
        gpr[Cpu::kRax] |= (u64{1} << size) - 1;
      done = true;
      break;
    }
    case ZYDIS_MNEMONIC_OUT:
      done = io;
      break;
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
      done = io;  // the guest's interrupts are its upcall mask, and it knows that
      break;
    default:
      break;
  }
  if (!done && kernel) switch (d.insn.mnemonic) {
      case ZYDIS_MNEMONIC_CLTS:
        cpu.set_task_switched(false);
        done = true;
        break;
      case ZYDIS_MNEMONIC_WBINVD:
      case ZYDIS_MNEMONIC_INVD:
        done = true;
        break;
      case ZYDIS_MNEMONIC_MOV:
        if (d.operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER || d.operands[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
          break;
        switch (ZydisRegisterGetClass(d.operands[1].reg.value)) {
          case ZYDIS_REGCLASS_CONTROL: {
            u64& to = gpr[register_id(d.operands[0])];
            const unsigned cr = register_id(d.operands[1]);
            done = cr == 0 || cr == 2 || cr == 3 || cr == 4;
            if (cr == 0) to = guest_cr0(cpu);
            if (cr == 2) to = v.cr2;
            if (cr == 3) to = v.kernel_root << kPageShift;
            if (cr == 4) to = cpu.cr4();
            break;
          }
          case ZYDIS_REGCLASS_DEBUG: {
            const unsigned dr = register_id(d.operands[1]);
            if (dr == 4 || dr == 5) break;
            gpr[register_id(d.operands[0])] = cpu.debug_register(dr);
            done = true;
            break;
          }
          default:
            if (ZydisRegisterGetClass(d.operands[0].reg.value) == ZYDIS_REGCLASS_CONTROL)
              done = write_cr(cpu, register_id(d.operands[0]), gpr[register_id(d.operands[1])]);
            if (ZydisRegisterGetClass(d.operands[0].reg.value) == ZYDIS_REGCLASS_DEBUG)
              done = write_debug(cpu, register_id(d.operands[0]), gpr[register_id(d.operands[1])]) == 0;
            break;
        }
        break;
      case ZYDIS_MNEMONIC_RDMSR: {
        u64 value = 0;
        done = read_msr(cpu, static_cast<u32>(gpr[Cpu::kRcx]), value);
        if (!done) break;
        gpr[Cpu::kRax] = value & 0xffffffff;
        gpr[Cpu::kRdx] = value >> 32;
        break;
      }
      case ZYDIS_MNEMONIC_WRMSR:
        done = write_msr(cpu, static_cast<u32>(gpr[Cpu::kRcx]), edx_eax(gpr));
        break;
      case ZYDIS_MNEMONIC_XSETBV:
        done = (gpr[Cpu::kRcx] & 0xffffffff) == 0 && cpu.set_xcr0(edx_eax(gpr));
        break;
      default:
        break;
    }
  if (!done) {
    counters_[kRefusedInstructions].add();
    return false;
  }
  counters_[kEmulated].add();
  cpu.rip() += d.insn.length;
  return true;
}

}  // namespace bulkhead::abi::xen::pv
