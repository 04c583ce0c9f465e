#include "tests/insn/compare.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

namespace bulkhead::insn {
namespace {

constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

constexpr u64 kDirectionFlag = 0x400;

u64 compared_flags(const Case& test, const Outcome& expected) {
  return kComparedFlags & ~(expected.vector == kNoFault ? test.undefined_flags : test.undefined_anywhere);
}

std::string hex(std::span<const u8> bytes) {
  std::string text;
  for (const u8 byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::string lanes(const std::array<u64, 8>& zmm) {
  std::string text;
  for (unsigned i = 8; i-- > 0;) text += fmt::format("{:016x}{}", zmm[i], i ? "_" : "");
  return text;
}

class Differences {
 public:
  template <class T>
  void compare(std::string_view what, T before, T expected, T actual) {
    if (expected == actual) return;
    text_ += fmt::format("  {:8} before {:#x} expected {:#x} got {:#x}\n", what, before, expected, actual);
  }
  void line(const std::string& text) { text_ += "  " + text + "\n"; }
  std::string text_;
};

void compare_vectors(Differences& out, const Registers& before, const Registers& expected, const Registers& actual) {
  for (unsigned i = 0; i < 8; ++i) {
    if (expected.st[i] == actual.st[i]) continue;
    out.line(fmt::format("st{} (low byte first) before {} expected {} got {}", i, hex(before.st[i]),
                         hex(expected.st[i]), hex(actual.st[i])));
  }
  for (unsigned i = 0; i < 8; ++i) out.compare(fmt::format("k{}", i), before.k[i], expected.k[i], actual.k[i]);
  for (unsigned i = 0; i < 32; ++i) {
    if (expected.zmm[i] == actual.zmm[i]) continue;
    out.line(fmt::format("zmm{}\n    before   {}\n    expected {}\n    got      {}", i, lanes(before.zmm[i]),
                         lanes(expected.zmm[i]), lanes(actual.zmm[i])));
  }
}

void compare_memory(Differences& out, std::span<const u8> expected, std::span<const u8> actual) {
  unsigned shown = 0;
  for (size_t i = 0; i < expected.size() && shown < 8; ++i) {
    if (expected[i] == actual[i]) continue;
    const size_t length = std::min<size_t>(16, expected.size() - i);
    out.line(fmt::format("memory {:#x} before {} expected {} got {}", kDataBase + i,
                         hex({initial_data().data() + i, length}), hex(expected.subspan(i, length)),
                         hex(actual.subspan(i, length))));
    ++shown;
    i += 15;
  }
}

bool same_exception(const Case& test, const Outcome& expected, const Outcome& actual) {
  if (expected.vector != actual.vector) return false;
  if (expected.error == actual.error && expected.address == actual.address) return true;
  return test.any_page_fault && expected.vector == 14;
}

bool same_memory(const Case& test, std::span<const u8> expected, std::span<const u8> actual) {
  if (test.ignored.size == 0) return std::memcmp(expected.data(), actual.data(), expected.size()) == 0;
  for (size_t i = 0; i < expected.size(); ++i)
    if (expected[i] != actual[i] && kDataBase + i - test.ignored.address >= test.ignored.size) return false;
  return true;
}

}  // namespace

Verdict compare(const Case& test, const Outcome& expected, std::span<const u8> expected_memory, const Outcome& actual,
                std::span<const u8> actual_memory) {
  const Registers &a = expected.registers, &b = actual.registers;
  if (!same_exception(test, expected, actual) || a.gpr != b.gpr || a.rip != b.rip) return Verdict::kDifferent;
  if (std::memcmp(&a.mxcsr, &b.mxcsr, sizeof(Registers) - offsetof(Registers, mxcsr)) != 0) return Verdict::kDifferent;
  if (!same_memory(test, expected_memory, actual_memory)) return Verdict::kDifferent;
  const u64 flags = (a.flags ^ b.flags) & compared_flags(test, expected);
  if (flags == 0) return Verdict::kSame;
  return expected.vector != kNoFault && !(flags & kDirectionFlag) ? Verdict::kDeadFlags : Verdict::kDifferent;
}

std::string disassemble(const Case& test) {
  std::string text;
  for (unsigned i = 0; i < test.insn_count; ++i) {
    const unsigned at = test.insn_offset[i];
    ZydisDisassembledInstruction insn;
    const bool ok = ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, test.start + at,
                                                       test.code.data() + at, test.length - at, &insn));
    const unsigned next = i + 1 < test.insn_count ? test.insn_offset[i + 1] : test.length;
    text += fmt::format("  {:x}: {:30} {}\n", test.start + at, hex(test.bytes().subspan(at, next - at)),
                        ok ? insn.text : "?");
  }
  return text;
}

std::string report(const Case& test, std::string_view runner, const Outcome& expected,
                   std::span<const u8> expected_memory, const Outcome& actual, std::span<const u8> actual_memory) {
  Differences out;
  const Registers &before = test.before, &a = expected.registers, &b = actual.registers;
  out.compare("vector", kNoFault, expected.vector, actual.vector);
  out.compare("error", 0u, expected.error, actual.error);
  out.compare<u64>("address", 0, expected.address, actual.address);
  out.compare("rip", test.start, a.rip, b.rip);
  const u64 flags = compared_flags(test, expected);
  out.compare("flags", before.flags & flags, a.flags & flags, b.flags & flags);
  for (unsigned i = 0; i < 16; ++i) out.compare(kNames[i], before.gpr[i], a.gpr[i], b.gpr[i]);
  out.compare("mxcsr", before.mxcsr, a.mxcsr, b.mxcsr);
  out.compare("fcw", before.fcw, a.fcw, b.fcw);
  out.compare("fsw", before.fsw, a.fsw, b.fsw);
  out.compare("ftw", before.ftw, a.ftw, b.ftw);
  compare_vectors(out, before, a, b);
  compare_memory(out, expected_memory, actual_memory);
  std::string registers;
  for (unsigned i = 0; i < 16; ++i)
    registers += fmt::format(" {}={:#x}{}", kNames[i], before.gpr[i], i == 7 ? "\n  " : "");
  std::string patches;
  for (unsigned i = 0; i < test.patch_count; ++i)
    patches += fmt::format("  [{:#x}] = {}\n", test.patches[i].address,
                           hex({test.patches[i].bytes.data(), test.patches[i].size}));
  return fmt::format(
      "case {} of seed {}, {}, native vector {}:\n{}  initial{}\n  flags={:#x} mxcsr={:#x} fcw={:#x} fsw={:#x} "
      "ftw={:#x}\n{}{}",
      test.index, test.seed, runner, expected.vector, disassemble(test), registers, before.flags, before.mxcsr,
      before.fcw, before.fsw, before.ftw, patches, out.text_);
}

}  // namespace bulkhead::insn
