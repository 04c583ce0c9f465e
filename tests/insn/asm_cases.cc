#include "tests/insn/asm_cases.h"

#include <xbyak/xbyak.h>

namespace bulkhead::insn {
namespace {

using Code = Xbyak::CodeGenerator;
constexpr u8 kRax = 0, kRcx = 1, kRdx = 2, kRbx = 3, kRsp = 4, kRdi = 7, kR8 = 8, kR9 = 9;
constexpr u64 kCf = 1, kPf = 4, kZf = 0x40, kSf = 0x80, kOf = 0x800;
constexpr u64 kStack = kDataBase + 0x1000;

std::vector<AsmCase> make_cases() {
  std::vector<AsmCase> cases;
  const auto add = [&](AsmCase test) { cases.push_back(std::move(test)); };

  // ---- integer
  add({"add wraps",
       [](Code& c) { c.add(c.rax, c.rcx); },
       {{kRax, ~u64{0}}, {kRcx, 1}},
       {{kRax, 0}},
       kCf | kZf | kOf | kSf,
       kCf | kZf});
  add({"signed overflow",
       [](Code& c) { c.add(c.eax, 1); },
       {{kRax, 0xffffffff7fffffff}},
       {{kRax, 0x80000000}},
       kOf | kSf | kCf,
       kOf | kSf});
  add({"16-bit writes keep the rest",
       [](Code& c) { c.mov(c.ax, 0x1234); },
       {{kRax, 0xaaaabbbbccccdddd}},
       {{kRax, 0xaaaabbbbcccc1234}}});
  add({"high byte", [](Code& c) { c.mov(c.ah, c.cl); }, {{kRax, 0}, {kRcx, 0x5a}}, {{kRax, 0x5a00}}});
  add({"adc chain",
       [](Code& c) {
         c.add(c.rax, c.rax);
         c.adc(c.rcx, 0);
       },
       {{kRax, u64{1} << 63}, {kRcx, 7}},
       {{kRax, 0}, {kRcx, 8}}});
  add({"a loop that only counts",
       [](Code& c) {
         Xbyak::Label head, out;
         c.L(head);
         c.cmp(c.r8, c.rbx);
         c.jae(out);
         c.inc(c.eax);
         c.add(c.r8, 3);
         c.cmp(c.eax, c.ecx);
         c.jne(head);
         c.L(out);
       },
       {{kRax, 5}, {kRcx, 2000}, {kRbx, 1510}, {kR8, 10}},
       {{kRax, 505}, {kR8, 1510}},
       kCf | kZf,
       kZf});
  // ---- the stack, where neighbouring accesses may be looked up together
  add({"pushes and pops across two pages",
       [](Code& c) {
         for (const Xbyak::Reg64& reg : {c.rax, c.rcx, c.rbx, c.rdx}) c.push(reg);
         c.mov(c.r8, c.ptr[c.rsp + 16]);
         c.add(c.qword[c.rsp + 24], 1);
         for (const Xbyak::Reg64& reg : {c.rax, c.rcx, c.r9, c.rdx}) c.pop(reg);
       },
       {{kRax, 1}, {kRcx, 2}, {kRbx, 3}, {kRdx, 4}, {kRsp, kDataBase + 0x1010}},
       {{kRax, 4}, {kRcx, 3}, {kR9, 2}, {kRdx, 2}, {kR8, 2}, {kRsp, kDataBase + 0x1010}}});
  add({"the third push has no page",
       [](Code& c) {
         for (const Xbyak::Reg64& reg : {c.rax, c.rcx, c.rbx}) c.push(reg);
       },
       {{kRsp, kDataBase + 0x10}},
       {{kRsp, kDataBase}},
       0,
       0,
       14,
       2,
       6});
  add({"reads where the push behind them may not write",
       [](Code& c) {
         c.mov(c.rax, c.ptr[c.rsp]);
         c.mov(c.eax, 5);
         c.mov(c.rcx, c.ptr[c.rsp + 8]);
         c.push(c.rcx);
       },
       {{kRsp, kDataBase + 0x2010}},
       {{kRax, 5}, {kRsp, kDataBase + 0x2010}},
       0,
       0,
       14,
       14,
       7});
  add({"pushes of RSP itself",
       [](Code& c) {
         c.push(c.rsp);
         c.push(c.rsp);
         c.pop(c.rax);
         c.pop(c.rcx);
       },
       {},
       {{kRax, kStack - 8}, {kRcx, kStack}, {kRsp, kStack}}});
  add({"RSP moves by constants",
       [](Code& c) {
         c.push(c.rax);
         c.sub(c.rsp, 0x18);
         c.mov(c.ptr[c.rsp + 8], c.rcx);
         c.lea(c.rsp, c.ptr[c.rsp + 8]);
         c.pop(c.rdx);
         c.add(c.rsp, 8);
         c.pop(c.rbx);
       },
       {{kRax, 1}, {kRcx, 2}},
       {{kRdx, 2}, {kRbx, 1}, {kRsp, kStack}}});
  add({"RSP moves by what is not known",
       [](Code& c) {
         c.push(c.rax);
         c.and_(c.rsp, -64);
         c.push(c.rcx);
         c.mov(c.rdx, c.ptr[c.rsp]);
         c.xchg(c.rsp, c.rbx);
         c.push(c.rdx);
         c.pop(c.rax);
       },
       {{kRax, 1}, {kRcx, 2}, {kRbx, kDataBase + 0x800}},
       {{kRax, 2}, {kRdx, 2}, {kRsp, kDataBase + 0x800}, {kRbx, kDataBase + 0xfc0 - 8}}});
  add({"pushes around an instruction that is interpreted",
       [](Code& c) {
         c.push(c.rax);
         c.push(c.rcx);
         c.pushfq();
         c.add(c.rsp, 8);
         c.pop(c.rdx);
         c.pop(c.rbx);
       },
       {{kRax, 1}, {kRcx, 2}},
       {{kRdx, 2}, {kRbx, 1}, {kRsp, kStack}}});
  add({"demoted registers as operands",
       [](Code& c) {
         c.mov(c.r8, c.rax);
         c.add(c.r8, c.r8);
         c.imul(c.r9, c.r8, 3);
         c.xor_(c.r10d, c.r10d);
         c.cmp(c.r9, c.r8);
         c.adc(c.r10, c.r9);
         c.mov(c.r8d, c.r9d);
         c.setc(c.r11b);
         c.mov(c.rbx, c.r10);
       },
       {{kRax, 0x100000001}, {kR9, ~u64{0}}, {10, ~u64{0}}, {11, ~u64{0}}},
       {{kR8, 6}, {kR9, 0x600000006}, {kRbx, 0x600000006}, {11, ~u64{0xff}}}});
  add({"mul",
       [](Code& c) { c.mul(c.rcx); },
       {{kRax, ~u64{0}}, {kRcx, ~u64{0}}},
       {{kRax, 1}, {kRdx, ~u64{0} - 1}},
       kCf | kOf,
       kCf | kOf});
  add({"idiv",
       [](Code& c) { c.idiv(c.rcx); },
       {{kRax, 0 - u64{7}}, {kRdx, ~u64{0}}, {kRcx, 2}},
       {{kRax, 0 - u64{3}}, {kRdx, ~u64{0}}}});
  add({"division by zero",
       [](Code& c) {
         c.nop();
         c.div(c.rcx);
       },
       {{kRcx, 0}},
       {},
       0,
       0,
       0,
       1});
  add({"quotient too big", [](Code& c) { c.div(c.ecx); }, {{kRax, 0}, {kRdx, 5}, {kRcx, 5}}, {{kRdx, 5}}, 0, 0, 0, 0});
  add({"shift by 0 keeps flags",
       [](Code& c) {
         c.stc();
         c.shl(c.rax, c.cl);
       },
       {{kRax, 1}, {kRcx, 64}},
       {{kRax, 1}},
       kCf,
       kCf});
  add({"bsf of 0", [](Code& c) { c.bsf(c.rax, c.rcx); }, {{kRcx, 0}}, {}, kZf, kZf});
  add({"tzcnt, lzcnt, popcnt",
       [](Code& c) {
         c.tzcnt(c.rax, c.rcx);
         c.lzcnt(c.rdx, c.rcx);
         c.popcnt(c.rbx, c.rcx);
       },
       {{kRcx, 0xf0}},
       {{kRax, 4}, {kRdx, 56}, {kRbx, 4}}});
  add({"bswap", [](Code& c) { c.bswap(c.rax); }, {{kRax, 0x0102030405060708}}, {{kRax, 0x0807060504030201}}});
  add({"cmpxchg fails",
       [](Code& c) {
         c.mov(c.qword[c.rsi], c.rdx);
         c.lock();
         c.cmpxchg(c.qword[c.rsi], c.rcx);
       },
       {{kRax, 1}, {kRdx, 2}, {kRcx, 3}},
       {{kRax, 2}},
       kZf,
       0});
  add({"cmpxchg16b",
       [](Code& c) {
         c.mov(c.qword[c.rsi], c.rax);
         c.mov(c.qword[c.rsi + 8], c.rdx);
         c.lock();
         c.cmpxchg16b(c.ptr[c.rsi]);
         c.mov(c.r8, c.qword[c.rsi]);
         c.mov(c.r9, c.qword[c.rsi + 8]);
       },
       {{kRax, 10}, {kRdx, 11}, {kRbx, 20}, {kRcx, 21}},
       {{kR8, 20}, {kR9, 21}},
       kZf,
       kZf});
  add({"xadd",
       [](Code& c) {
         c.mov(c.dword[c.rsi], 5);
         c.lock();
         c.xadd(c.dword[c.rsi], c.ecx);
         c.mov(c.eax, c.dword[c.rsi]);
       },
       {{kRcx, 7}},
       {{kRax, 12}, {kRcx, 5}}});
  add({"bt with a far bit offset",
       [](Code& c) {
         c.mov(c.dword[c.rsi + 16], 4);
         c.mov(c.rcx, 130);
         c.bts(c.qword[c.rsi], c.rcx);
       },
       {},
       {},
       kCf,
       kCf});
  add({"pdep, pext",
       [](Code& c) {
         c.pdep(c.rax, c.rcx, c.rdx);
         c.pext(c.rbx, c.rax, c.rdx);
       },
       {{kRcx, 0b101}, {kRdx, 0xf0f0}},
       {{kRax, 0x50}, {kRbx, 0b101}}});

  // ---- control flow and stack
  add({"call and return",
       [](Code& c) {
         Xbyak::Label over, function;
         c.call(function);
         c.add(c.rax, 1);
         c.jmp(over);
         c.L(function);
         c.mov(c.rax, 41);
         c.ret();
         c.L(over);
       },
       {{kRsp, kStack}},
       {{kRax, 42}, {kRsp, kStack}}});
  add({"loop",
       [](Code& c) {
         Xbyak::Label again;
         c.xor_(c.eax, c.eax);
         c.mov(c.ecx, 10);
         c.L(again);
         c.add(c.rax, c.rcx);
         c.loop(again);
       },
       {},
       {{kRax, 55}, {kRcx, 0}}});
  add({"push, pop",
       [](Code& c) {
         c.push(c.rax);
         c.push(c.cx);
         c.pop(c.dx);
         c.pop(c.rbx);
       },
       {{kRax, 0x1122334455667788}, {kRcx, 0xabcd}, {kRdx, 0}, {kRsp, kStack}},
       {{kRbx, 0x1122334455667788}, {kRdx, 0xabcd}, {kRsp, kStack}}});
  add({"rep movsb overlaps forwards",
       [](Code& c) {
         c.mov(c.byte[c.rsi], 0x77);
         c.lea(c.rdi, c.ptr[c.rsi + 1]);
         c.mov(c.ecx, 15);
         c.rep();
         c.movsb();
         c.mov(c.rax, c.qword[c.rdi - 8]);
       },
       {},
       {{kRax, 0x7777777777777777}, {kRcx, 0}, {kRdi, kDataBase + 16}}});
  add({"repne scasb",
       [](Code& c) {
         c.mov(c.dword[c.rsi], 0x00434241);
         c.mov(c.rdi, c.rsi);
         c.xor_(c.eax, c.eax);
         c.mov(c.rcx, -1);
         c.repne();
         c.scasb();
       },
       {},
       {{kRcx, ~u64{0} - 4}, {kRdi, kDataBase + 4}},
       kZf,
       kZf});
  add({"rep stosq stops at a fault",
       [](Code& c) {
         c.mov(c.rdi, kDataBase + kWritableSize - 16);
         c.mov(c.ecx, 5);
         c.rep();
         c.stosq();
       },
       {},
       {{kRcx, 3}, {kRdi, kDataBase + kWritableSize}},
       0,
       0,
       14,
       10,
       7});
  add({"write to read-only memory",
       [](Code& c) {
         c.nop();
         c.mov(c.dword[c.rsi + static_cast<int>(kWritableSize)], c.eax);
       },
       {},
       {},
       0,
       0,
       14,
       1,
       7});
  add({"read of nothing", [](Code& c) { c.mov(c.eax, c.dword[c.rsi - 4]); }, {}, {}, 0, 0, 14, 0, 4});
  add({"non-canonical address",
       [](Code& c) { c.mov(c.eax, c.dword[c.rax]); },
       {{kRax, u64{1} << 63}},
       {},
       0,
       0,
       13,
       0,
       0});
  add({"undefined instruction",
       [](Code& c) {
         c.nop();
         c.ud2();
       },
       {},
       {},
       0,
       0,
       6,
       1});
  add({"breakpoint is a trap", [](Code& c) { c.int3(); }, {}, {}, 0, 0, 3, 1});
  add({"privileged instruction", [](Code& c) { c.db(0xfa); }, {}, {}, 0, 0, 13, 0});

  // ---- x87 and vectors
  add({"x87 sum",
       [](Code& c) {
         c.fninit();
         c.fld1();
         c.fldpi();
         c.faddp();
         c.fstp(c.qword[c.rsi]);
         c.mov(c.rax, c.qword[c.rsi]);
       },
       {},
       {{kRax, 0x401090fdaa22168c}}});
  add({"x87 exception comes with the next instruction",
       [](Code& c) {
         c.fninit();
         c.mov(c.word[c.rsi], 0x37b);  // zero divide unmasked
         c.fldcw(c.word[c.rsi]);
         c.fld1();
         c.fldz();
         c.fdivp();
         c.mov(c.eax, 7);
         c.fwait();
       },
       {},
       {{kRax, 7}},
       0,
       0,
       16,
       2 + 5 + 2 + 2 + 2 + 2 + 5});
  add({"packed add",
       [](Code& c) {
         c.movq(c.xmm0, c.rax);
         c.movq(c.xmm1, c.rcx);
         c.paddd(c.xmm0, c.xmm1);
         c.movq(c.rdx, c.xmm0);
       },
       {{kRax, 0x00000001ffffffff}, {kRcx, 0x0000000200000001}},
       {{kRdx, 0x0000000300000000}}});
  add({"unmasked divide raises #XM",
       [](Code& c) {
         c.mov(c.dword[c.rsi], 0x1f80 & ~0x200);
         c.ldmxcsr(c.dword[c.rsi]);
         c.xorps(c.xmm1, c.xmm1);
         c.mov(c.eax, 0x3f800000);
         c.movd(c.xmm0, c.eax);
         c.divss(c.xmm0, c.xmm1);
       },
       {},
       {},
       0,
       0,
       19,
       6 + 3 + 3 + 5 + 4});
  add({"misaligned movaps", [](Code& c) { c.movaps(c.xmm0, c.ptr[c.rsi + 8]); }, {}, {}, 0, 0, 13, 0});
  add({"comisd",
       [](Code& c) {
         c.movq(c.xmm0, c.rax);
         c.movq(c.xmm1, c.rcx);
         c.comisd(c.xmm0, c.xmm1);
       },
       {{kRax, 0x3ff0000000000000}, {kRcx, 0x7ff8000000000000}},
       {},
       kCf | kZf | kPf,
       kCf | kZf | kPf});
  add({"pcmpestri",
       [](Code& c) {
         c.movq(c.xmm0, c.rbx);
         c.movq(c.xmm1, c.r8);
         c.pcmpestri(c.xmm0, c.xmm1, 0);
       },
       {{kRax, 1}, {kRdx, 8}, {kRbx, 'c'}, {kR8, 0x6867666564636261}},
       {{kRcx, 2}},
       kCf,
       kCf});
  add({"cvttsd2si of too much",
       [](Code& c) {
         c.movq(c.xmm0, c.rax);
         c.cvttsd2si(c.rcx, c.xmm0);
       },
       {{kRax, 0x7ff0000000000000}},
       {{kRcx, u64{1} << 63}}});
  add({"aesenc of zero",
       [](Code& c) {
         c.pxor(c.xmm0, c.xmm0);
         c.pxor(c.xmm1, c.xmm1);
         c.aesenc(c.xmm0, c.xmm1);
         c.movq(c.rax, c.xmm0);
       },
       {},
       {{kRax, 0x6363636363636363}}});
  add({"256-bit add zeroes nothing it should not",
       [](Code& c) {
         c.vmovq(c.xmm0, c.rax);
         c.vpbroadcastq(c.ymm0, c.xmm0);
         c.vpaddq(c.ymm1, c.ymm0, c.ymm0);
         c.vextracti128(c.xmm2, c.ymm1, 1);
         c.vpextrq(c.rcx, c.xmm2, 1);
       },
       {{kRax, 21}},
       {{kRcx, 42}}});
  add({"vmaskmovps does not touch what is masked",
       [](Code& c) {
         c.vpxor(c.xmm0, c.xmm0, c.xmm0);
         c.vmaskmovps(c.xmm1, c.xmm0, c.ptr[c.rsi - 64]);
         c.vmovq(c.rax, c.xmm1);
       },
       {{kRax, 5}},
       {{kRax, 0}}});
  add({"gather stops at the fault",
       [](Code& c) {
         c.vpcmpeqd(c.xmm2, c.xmm2, c.xmm2);
         c.mov(c.eax, 4);
         c.vmovd(c.xmm1, c.eax);
         c.mov(c.eax, 0x40000000);
         c.vpinsrd(c.xmm1, c.xmm1, c.eax, 2);
         c.vpgatherdd(c.xmm0, c.ptr[c.rsi + c.xmm1 * 2], c.xmm2);
       },
       {},
       {},
       0,
       0,
       14,
       4 + 5 + 4 + 5 + 6,
       4});
  return cases;
}

}  // namespace

std::span<const AsmCase> asm_cases() {
  static const std::vector<AsmCase> cases = make_cases();
  return cases;
}

}  // namespace bulkhead::insn
