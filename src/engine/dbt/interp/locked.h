// Read-modify-write of guest memory, locked or not.
#pragma once
#include "engine/dbt/cpu/cpu.h"

namespace bulkhead::engine::dbt {

// Guest operands may lie at any address.
template <class T>
struct __attribute__((packed, may_alias)) Unaligned {
  T value;
};
template <class T>
T load_host(const void* at) {
  return static_cast<const volatile Unaligned<T>*>(at)->value;
}
template <class T>
void store_host(void* at, T value) {
  static_cast<volatile Unaligned<T>*>(at)->value = value;
}

// LOCK CMPXCHG on the host: exact for any alignment, which the compiler's atomics do not promise. On failure `expected`
// is what was found.
template <class T>
bool compare_exchange(void* at, T& expected, T desired) {
  bool equal;
  __asm__ volatile("lock cmpxchg %[desired], %[at]"
                   : [at] "+m"(*static_cast<Unaligned<T>*>(at)), "+a"(expected), "=@ccz"(equal)
                   : [desired] "q"(desired)
                   : "memory");
  return equal;
}
inline bool compare_exchange(void* at, u128& expected, u128 desired) {
  bool equal;
  u64 low = static_cast<u64>(expected), high = static_cast<u64>(expected >> 64);
  __asm__ volatile("lock cmpxchg16b %[at]"
                   : [at] "+m"(static_cast<Unaligned<u128>*>(at)->value), "+a"(low), "+d"(high), "=@ccz"(equal)
                   : "b"(static_cast<u64>(desired)), "c"(static_cast<u64>(desired >> 64))
                   : "memory");
  expected = u128{high} << 64 | low;
  return equal;
}

// The locked access that cannot be one host instruction (it crosses pages, or is not RAM): under the partition's lock,
// so that such accesses exclude each other. They do not exclude ordinary locked accesses to the same bytes; no kernel
// does that.
using LockedOp = void (*)(void* context, Cpu& cpu, u64 linear);  // loads, computes, stores; may raise
void run_locked(Cpu& cpu, u64 linear, unsigned size, LockedOp op, void* context);

// Replaces the T at `linear` by f(T), with faults as for a write and nothing changed by a fault.
template <class T, class F>
void modify_memory(Cpu& cpu, u64 linear, bool lock, F f) {
  if (void* host = cpu.atomic_host(linear, sizeof(T))) [[likely]] {
    T old = load_host<T>(host);
    if (!lock) return store_host<T>(host, f(old));
    while (!compare_exchange(host, old, static_cast<T>(f(old)))) {
    }
    return;
  }
  const auto plain = [](void* context, Cpu& c, u64 at) {
    c.store(at, sizeof(T), (*static_cast<F*>(context))(static_cast<T>(c.load(at, sizeof(T)))));
  };
  if (lock) return run_locked(cpu, linear, sizeof(T), plain, &f);
  cpu.probe_write(linear, sizeof(T));
  plain(&f, cpu, linear);
}

}  // namespace bulkhead::engine::dbt
