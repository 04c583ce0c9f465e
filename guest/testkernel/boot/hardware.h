// Ports, MSRs and the serial line, for a kernel that has nothing else.
#pragma once
#include <stdint.h>

namespace testkernel {

inline void out8(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
inline void out16(uint16_t port, uint16_t value) { asm volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
inline void out32(uint16_t port, uint32_t value) { asm volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
inline uint8_t in8(uint16_t port) {
  uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
inline uint16_t in16(uint16_t port) {
  uint16_t value;
  asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
inline uint32_t in32(uint16_t port) {
  uint32_t value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

inline constexpr uint16_t kCom1 = 0x3f8;
inline constexpr uint16_t kCom1LineStatus = kCom1 + 5;  // bit 0: a byte is there; bit 5: room to send

void put(char c);
void put(const char* text);
void put_number(uint64_t value, unsigned base = 10);

// An address that was given to us as a number.
template <class T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

// The guest that asks for everything that it has no business with.
void wild_ports();
void wild_msrs();
void wild_mmio();

}  // namespace testkernel
