// Accesses of every width to everything that is nobody's, or somebody's in a way that nobody does. Only what would end
// the machine, or take our own console away, is left out.
#include "hardware.h"

// entry.S: with `recovery` set, an exception goes on there and leaves `faulted` as 1.
extern "C" uintptr_t recovery;
extern "C" uint32_t faulted;

namespace testkernel {
namespace {

constexpr uint32_t kLapic = 0xFEE00000, kIoApic = 0xFEC00000, kHole = 0xC0000000;
constexpr uint32_t kApicBase = 0x1b, kX2ApicFirst = 0x800, kX2ApicLast = 0x83f;

bool ends_the_machine(uint32_t port) {
  const bool power = port >= 0x600 && port < 0x610,
             reset = port >= 0xcf6 && port <= 0xcf9;  // a wide access may reach it
  return power || reset || (port >= 0x61 && port <= 0x64) || (port >= 0x8f && port <= 0x92) ||
         (port >= 0xf1 && port <= 0xf4);
}
bool is_console(uint32_t port) { return (port >= kCom1 - 3 && port < kCom1 + 8) || (port >= 0xe6 && port <= 0xe9); }

#ifdef __i386__
bool read_msr(uint32_t number) {
  faulted = 0;
  asm volatile("movl $1f, recovery\n rdmsr\n 1: movl $0, recovery" ::"c"(number) : "eax", "edx", "memory");
  return faulted == 0;
}
bool write_msr(uint32_t number, uint32_t value) {
  faulted = 0;
  uint32_t low = value;
  asm volatile("movl $1f, recovery\n wrmsr\n 1: movl $0, recovery"
               : "+a"(low)
               : "c"(number), "d"(0xffffffffu)
               : "memory");
  return faulted == 0;
}
#else  // only for tools that read this as 64-bit code
bool read_msr(uint32_t) { return false; }
bool write_msr(uint32_t, uint32_t) { return false; }
#endif

template <class T>
void poke(uint32_t address) {
  volatile T* const cell = at<volatile T>(address);
  *cell = static_cast<T>(*cell ^ static_cast<T>(~T{0}));
  *cell = static_cast<T>(~T{0});
  *cell = T{0};
}

void poke_page(uint32_t page, uint32_t size) {
  for (uint32_t offset = 0; offset < size; offset += 4) poke<uint32_t>(page + offset);
  for (uint32_t offset = 0; offset < 64; ++offset) {
    poke<uint8_t>(page + offset);
    poke<uint16_t>(page + offset);
    poke<uint32_t>(page + offset);
    poke<uint64_t>(page + offset);
  }
}

}  // namespace

void wild_ports() {
  for (uint32_t port = 0; port < 0x10000; ++port) {
    if (ends_the_machine(port) || is_console(port)) continue;
    in8(port), in16(port), in32(port);
    out8(port, 0xff), out16(port, 0xffff), out32(port, 0xffffffff);
    out8(port, 0), out16(port, 0), out32(port, 0);
  }
  put("every port answered\n");
}

void wild_msrs() {
  uint32_t readable = 0;
  const uint32_t starts[] = {0, 0x40000000, 0x4b564d00, 0xc0000000, 0xc0010000, 0xdead0000, 0xffffe000};
  for (const uint32_t start : starts) {
    for (uint32_t number = start; number - start < 0x2000; ++number) {
      readable += read_msr(number) ? 1 : 0;
      const bool ours = number == kApicBase || (number >= kX2ApicFirst && number <= kX2ApicLast);
      if (!ours) write_msr(number, 0xffffffff);
    }
  }
  put(readable > 4 ? "every MSR answered\n" : "hardly any MSR can be read\n");
}

void wild_mmio() {
  // The windows of the devices, and a page here and there where nothing is.
  poke_page(kIoApic, 0x100);
  for (uint32_t page = 0xd0000000; page < 0xd0014000; page += 0x1000) poke_page(page, 0x200);
  for (uint32_t page = kHole; page < 0xfe000000; page += 0x40000) poke<uint32_t>(page);
  for (uint32_t offset = 0; offset < 0x400; offset += 4) static_cast<void>(*at<volatile uint32_t>(kLapic + offset));
  put("every page answered\n");
}

}  // namespace testkernel
