#include "engine/dbt/simd/host_fault.h"

#include <sys/auxv.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>

#include "base/assert.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr std::array kSignals = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

// Readable from the handler at any moment: `begin` is written last and cleared first.
struct Range {
  std::atomic<u64> begin{0};
  std::atomic<u64> end{0};
  std::atomic<FaultCallback> callback{nullptr};
  std::atomic<void*> owner{nullptr};
};
std::array<Range, kMaxFaultRanges> ranges;
std::atomic<unsigned> ranges_used{0};  // no range at or above this index was ever used
std::mutex ranges_mutex;
std::array<struct sigaction, kSignals.size()> previous;

Range* find_range(u64 address) {
  const unsigned used = ranges_used.load(std::memory_order_acquire);
  for (unsigned i = 0; i < used; ++i) {
    const u64 begin = ranges[i].begin.load(std::memory_order_acquire);
    if (begin && address >= begin && address < ranges[i].end.load(std::memory_order_relaxed)) return &ranges[i];
  }
  return nullptr;
}

// Not ours: puts the earlier handler back and returns, so that the instruction faults again under it.
void give_up(int signal) {
  for (unsigned i = 0; i < kSignals.size(); ++i)
    if (kSignals[i] == signal) sigaction(signal, &previous[i], nullptr);
}

void on_signal(int signal, siginfo_t* info, void* raw_context) {
  auto* context = static_cast<ucontext_t*>(raw_context);
  Range* range = find_range(static_cast<u64>(context->uc_mcontext.gregs[REG_RIP]));
  const FaultCallback callback = range ? range->callback.load(std::memory_order_relaxed) : nullptr;
  if (!callback || !callback(range->owner.load(std::memory_order_relaxed), context, signal, info)) give_up(signal);
}

void install_handler() {
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  for (unsigned i = 0; i < kSignals.size(); ++i) BH_ASSERT(sigaction(kSignals[i], &action, &previous[i]) == 0);
}

class FaultStack {
 public:
  FaultStack() {
    // The signal frame alone is several KiB with AVX-512 and grows with the CPU; the kernel says how much.
    size_ = std::max<size_t>(getauxval(AT_MINSIGSTKSZ), 16384) + 48 * 1024;
    size_ = (size_ + 4095) & ~size_t{4095};
    base_ = mmap(nullptr, size_ + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    BH_ASSERT(base_ != MAP_FAILED);
    BH_ASSERT(mprotect(base_, 4096, PROT_NONE) == 0);
    stack_t stack{};
    stack.ss_sp = static_cast<char*>(base_) + 4096;
    stack.ss_size = size_;
    BH_ASSERT(sigaltstack(&stack, nullptr) == 0);
  }
  ~FaultStack() {
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    sigaltstack(&off, nullptr);
    munmap(base_, size_ + 4096);
  }

 private:
  void* base_;
  size_t size_;
};

}  // namespace

void register_fault_range(const void* begin, const void* end, FaultCallback callback, void* owner) {
  const std::lock_guard lock{ranges_mutex};
  static const bool installed = (install_handler(), true);
  (void)installed;
  unsigned i = 0;
  while (i < kMaxFaultRanges && ranges[i].begin.load(std::memory_order_relaxed)) ++i;
  BH_ASSERT(i < kMaxFaultRanges);
  ranges[i].end.store(reinterpret_cast<u64>(end), std::memory_order_relaxed);
  ranges[i].callback.store(callback, std::memory_order_relaxed);
  ranges[i].owner.store(owner, std::memory_order_relaxed);
  ranges[i].begin.store(reinterpret_cast<u64>(begin), std::memory_order_release);
  if (i >= ranges_used.load(std::memory_order_relaxed)) ranges_used.store(i + 1, std::memory_order_release);
}

void unregister_fault_range(const void* begin) {
  const std::lock_guard lock{ranges_mutex};
  for (Range& range : ranges)
    if (range.begin.load(std::memory_order_relaxed) == reinterpret_cast<u64>(begin)) range.begin.store(0);
}

bool in_fault_range(u64 address) { return find_range(address) != nullptr; }

void ensure_fault_stack() { static thread_local FaultStack stack; }

}  // namespace bulkhead::engine::dbt
