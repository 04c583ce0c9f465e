// Xen as a PV kernel sees it: hypercalls, machine memory, a console.
#pragma once
#include <stddef.h>
#include <stdint.h>
// (the standard integers come first)
#include <xen/xen.h>

namespace testkernel {

using u64 = uint64_t;
using i64 = int64_t;

inline i64 hypercall(u64 number, u64 a = 0, u64 b = 0, u64 c = 0, u64 d = 0, u64 e = 0) {
  register u64 r10 asm("r10") = d;
  register u64 r8 asm("r8") = e;
  i64 result;
  asm volatile("syscall"
               : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8)
               : "a"(number)
               : "rcx", "r9", "r11", "memory");
  return result;
}
template <class T>
u64 address_of(T& object) {
  return reinterpret_cast<u64>(&object);
}
template <class T>
i64 operation(u64 number, u64 command, T&& argument, u64 count = 1) {
  return hypercall(number, command, address_of(argument), count);
}

inline constexpr u64 kBase = 0xffffffff80000000, kMachineToPhysical = 0xffff800000000000;
inline constexpr u64 kNotCanonical = 0x0000800000000000;
inline constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kLarge = 0x80, kFlags = 0x67, kReadOnly = 0x25;

inline u64 physical_of(u64 machine_frame) { return reinterpret_cast<const u64*>(kMachineToPhysical)[machine_frame]; }
u64 machine_of(const void* page);           // the frame that it lies in
u64* table_at(u64 machine_frame);           // as it is mapped for us
u64* entry_of(u64 linear, unsigned level);  // the entry of that level that maps it
u64 machine_address(const void* object);

void put(const char* text);
void put_number(i64 value);
extern start_info_t* boot_info;
extern "C" long attempt(void (*what)(void*), void* argument);  // entry.S
extern "C" [[noreturn]] void return_to(const iret_context* frame);

[[noreturn]] void shut_down(unsigned reason);

// Each prints a line "PASS name" or "FAIL name"; returns how many failed.
unsigned check_refusals();
unsigned check_two_vcpus();
void measure_null_hypercall();

}  // namespace testkernel
