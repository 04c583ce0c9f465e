// Host exceptions raised by generated code, handed to whoever generated it. One handler for SIGSEGV, SIGBUS, SIGFPE and
// SIGILL for the process; a fault outside all registered ranges goes to the handler that was there before (usually: the
// process dies with a core).
#pragma once
#include <ucontext.h>

#include <csignal>

#include "base/ints.h"

namespace bulkhead::engine::dbt {

// Runs in the signal handler, on the faulting thread's alternate stack, with the other signals of this kind unblocked.
// True: handled, resume with what it made of `context`. REG_TRAPNO, REG_ERR and REG_CR2 of the context hold vector,
// error code, address.
using FaultCallback = bool (*)(void* owner, ucontext_t* context, int signal, siginfo_t* info);

// Faults whose RIP is in [begin, end) go to `callback`. Installs the handler on first use. Thread-safe. Ranges must not
// overlap. At most kMaxFaultRanges at a time; more is our own bug.
inline constexpr unsigned kMaxFaultRanges = 256;
void register_fault_range(const void* begin, const void* end, FaultCallback callback, void* owner);
// After return no callback for it runs any more, provided that no thread still runs code of the range.
void unregister_fault_range(const void* begin);
// True if `address` is in a registered range: code of ours, whose addresses a guest must not see.
bool in_fault_range(u64 address);

// Gives the calling thread an alternate signal stack; freed when the thread ends. Call once on every thread that runs
// generated code.
void ensure_fault_stack();

}  // namespace bulkhead::engine::dbt
