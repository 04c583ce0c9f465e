// Does what the words of the command line say: see README.md.
#include "hardware.h"

extern "C" uint32_t stub_table[32];
extern "C" uint32_t exception_number;
extern "C" [[noreturn]] void triple_fault();

namespace testkernel {
namespace {

constexpr uint32_t kMultibootMagic = 0x2badb002, kPvhMagic = 0x336ec578;

struct Boot {
  const char* protocol = "unknown";
  uint64_t command_line = 0, ram_kib = 0;
  struct Module {
    uint64_t start, size, text;
  } modules[16] = {};
  unsigned module_count = 0;
};
constinit Boot boot;

template <class T>
T field(uint64_t structure, uint32_t offset) {
  T value;
  __builtin_memcpy(&value, at<const char>(structure + offset), sizeof value);
  return value;
}

// [multiboot-0.6.96 §3.3]
void read_multiboot(uint32_t info) {
  boot.protocol = "multiboot";
  boot.command_line = field<uint32_t>(info, 16);
  const uint32_t map = field<uint32_t>(info, 48), end = map + field<uint32_t>(info, 44);
  for (uint32_t entry = map; entry < end; entry += field<uint32_t>(entry, 0) + 4)
    if (field<uint32_t>(entry, 20) == 1) boot.ram_kib += field<uint64_t>(entry, 12) >> 10;
  const uint32_t count = field<uint32_t>(info, 20), modules = field<uint32_t>(info, 24);
  for (uint32_t i = 0; i < count && i < 16; ++i) {
    const uint32_t module = modules + 16 * i, start = field<uint32_t>(module, 0);
    boot.modules[boot.module_count++] = {start, field<uint32_t>(module, 4) - start, field<uint32_t>(module, 8)};
  }
}

// [xen: xen/include/public/arch-x86/hvm/start_info.h]
void read_pvh(uint32_t info) {
  boot.protocol = "pvh";
  const uint32_t count = field<uint32_t>(info, 12), entries = field<uint32_t>(info, 48);
  const uint64_t modules = field<uint64_t>(info, 16), map = field<uint64_t>(info, 40);
  boot.command_line = field<uint64_t>(info, 24);
  for (uint32_t i = 0; i < entries; ++i)
    if (field<uint32_t>(map + 24 * i, 16) == 1) boot.ram_kib += field<uint64_t>(map + 24 * i, 8) >> 10;
  for (uint32_t i = 0; i < count && i < 16; ++i)
    boot.modules[boot.module_count++] = {field<uint64_t>(modules + 32 * i, 0), field<uint64_t>(modules + 32 * i, 8),
                                         field<uint64_t>(modules + 32 * i, 16)};
}

uint32_t crc_step(uint32_t crc, uint8_t byte) {
  crc ^= byte;
  for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
}

void print_memory() {
  put("memory ");
  put_number(boot.ram_kib);
  put(" KiB\n");
}

void print_modules() {
  for (unsigned i = 0; i < boot.module_count; ++i) {
    const Boot::Module& module = boot.modules[i];
    uint32_t crc = ~0u;
    for (uint64_t offset = 0; offset < module.size; ++offset) crc = crc_step(crc, *at<uint8_t>(module.start + offset));
    put("module ");
    put_number(module.size);
    put(" crc ");
    put_number(~crc, 16);
    put(" ");
    put(module.text == 0 ? "" : at<const char>(module.text));
    put("\n");
  }
}

bool has_input() { return (in8(kCom1LineStatus) & 1) != 0; }

void read_input(uint32_t count) {
  put("ready\n");
  uint32_t crc = ~0u;
  for (uint32_t i = 0; i < count; ++i) {
    while (!has_input()) {
    }
    crc = crc_step(crc, in8(kCom1));
  }
  put("input crc ");
  put_number(~crc, 16);
  put("\n");
}

[[noreturn]] void halt() {
  while (true) asm volatile("cli; hlt");
}
[[noreturn]] void power_off() {
  out8(0x600, 5 << 2 | 0x20);
  halt();
}
[[noreturn]] void reset() {
  out8(0xcf9, 6);
  halt();
}
void again() {
  put("again\n");
  for (int i = 0; i < 200000; ++i)
    if (has_input()) power_off();
  reset();
}

// `word` with a number behind it, or nullptr if `text` is another word.
const char* after(const char* text, const char* word) {
  while (*word != 0)
    if (*text++ != *word++) return nullptr;
  return text;
}
bool is(const char* text, const char* word) {
  const char* const end = after(text, word);
  return end != nullptr && (*end == 0 || *end == ' ');
}
uint32_t number_at(const char* text) {
  uint32_t value = 0;
  while (*text >= '0' && *text <= '9') value = 10 * value + static_cast<uint32_t>(*text++ - '0');
  return value;
}

void print_line(const char* what) {
  put(what);
  put("\n");
}

void say_in_debugcon() {
  for (const char* c = "hello from port e9\n"; *c != 0; ++c) out8(0xe9, static_cast<uint8_t>(*c));
}
[[noreturn]] void spin() {
  put("spinning\n");
  while (true) asm volatile("pause");
}

constexpr struct {
  const char* word;
  void (*act)();
} kWords[] = {
    {"hello", [] { print_line("hello from the test kernel"); }},
    {"boot", [] { print_line(boot.protocol); }},
    {"cmdline", [] { print_line(at<const char>(boot.command_line)); }},
    {"memory", print_memory},
    {"modules", print_modules},
    {"debugcon", say_in_debugcon},
    {"wild-ports", wild_ports},
    {"wild-msrs", wild_msrs},
    {"wild-mmio", wild_mmio},
    {"poweroff", [] { power_off(); }},
    {"poweroff-pm1", [] { out16(0x604, 0x2000 | 5 << 10); }},
    {"reset", [] { reset(); }},
    {"reset-keyboard", [] { out8(0x64, 0xfe); }},
    {"halt", [] { halt(); }},
    {"triple", [] { triple_fault(); }},
    {"spin", [] { spin(); }},
    {"again", again},
};

void obey(const char* word) {
  for (const auto& known : kWords)
    if (is(word, known.word)) known.act();
  if (const char* const number = after(word, "exit=")) out8(0xf4, static_cast<uint8_t>(number_at(number)));
  if (const char* const number = after(word, "read=")) read_input(number_at(number));
}

// Interrupt gates to the stubs of entry.S [SDM-3A §6.11].
void load_exception_table() {
  static uint64_t table[32];
  for (unsigned i = 0; i < 32; ++i) {
    const uint64_t target = stub_table[i];
    table[i] = (target & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (target >> 16) << 48;
  }
  struct __attribute__((packed)) {
    uint16_t limit;
    uintptr_t base;
  } const pointer{sizeof table - 1, reinterpret_cast<uintptr_t>(table)};
  asm volatile("lidt %0" ::"m"(pointer));
}

}  // namespace

void put(char c) {
  while ((in8(kCom1LineStatus) & 0x20) == 0) {
  }
  out8(kCom1, static_cast<uint8_t>(c));
}
void put(const char* text) {
  while (*text != 0) put(*text++);
}
void put_number(uint64_t value, unsigned base) {
  // 32-bit arithmetic only: there is no library to divide more.
  const uint32_t small = static_cast<uint32_t>(value);
  if (small >= base) put_number(small / base, base);
  put("0123456789abcdef"[small % base]);
}

}  // namespace testkernel

extern "C" [[noreturn]] void unexpected_exception() {
  testkernel::put("unexpected exception ");
  testkernel::put_number(exception_number);
  testkernel::put("\n");
  testkernel::out8(0xf4, 63);
  testkernel::halt();
}

extern "C" [[noreturn]] void kernel_main(uint32_t magic, uint32_t info) {
  using namespace testkernel;
  load_exception_table();
  if (magic == kMultibootMagic) {
    read_multiboot(info);
  } else if (field<uint32_t>(info, 0) == kPvhMagic) {
    read_pvh(info);
  }
  const char* text = boot.command_line == 0 ? "" : at<const char>(boot.command_line);
  for (bool start = true; *text != 0; start = *text++ == ' ')
    if (start) obey(text);
  put("no more words\n");
  halt();
}
