// What the checks have in common: each is a function that returns early where something is not as it has to be.
#pragma once
#include "hypervisor.h"

namespace testkernel {

inline const char* failed_at;
#define EXPECT(condition)                   \
  do {                                      \
    if (!(condition)) {                     \
      ::testkernel::failed_at = #condition; \
      return;                               \
    }                                       \
  } while (false)

// -1, or the vector of the exception that ended it. On vCPU 0.
template <class Function>
long faults(Function function) {
  return attempt([](void* f) { (*static_cast<Function*>(f))(); }, &function);
}

inline i64 map(const void* at, u64 entry, u64 flush = UVMF_INVLPG | UVMF_LOCAL) {
  return hypercall(__HYPERVISOR_update_va_mapping, reinterpret_cast<u64>(at), entry, flush);
}
inline i64 map_self(const void* at, u64 flags) { return map(at, machine_of(at) << 12 | flags); }
inline i64 mmuext(unsigned command, u64 frame, u64 two = 0) {
  struct mmuext_op request{};
  request.cmd = command;
  request.arg1.mfn = frame;
  request.arg2.src_mfn = two;
  return hypercall(__HYPERVISOR_mmuext_op, address_of(request), 1, 0, DOMID_SELF);
}

struct Check {
  const char* name;
  void (*check)();
};
// Prints a line "PASS name" or "FAIL name: condition" for each; returns how many failed.
template <unsigned kCount>
unsigned run(const Check (&checks)[kCount]) {
  unsigned failed = 0;
  for (const Check& check : checks) {
    failed_at = nullptr;
    check.check();
    put(failed_at == nullptr ? "PASS " : "FAIL ");
    put(check.name);
    if (failed_at != nullptr) {
      put(": ");
      put(failed_at);
      ++failed;
    }
    put("\n");
  }
  return failed;
}

}  // namespace testkernel
