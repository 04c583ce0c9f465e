#include "engine/kvm/vcpu.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include <mutex>

#include "engine/kvm/cpuid.h"
#include "engine/kvm/ioctl.h"
#include "engine/kvm/msr_list.h"

namespace bulkhead::engine::kvm {
namespace {

enum CounterIndex : std::size_t { kHalts, kEvents, kEntries, kInterruptions };
const std::vector<std::string_view> kCounters = {"halts", "events_taken", "kvm_runs", "kvm_runs_interrupted"};
constexpr u64 kInterruptFlag = 1u << 9;

int kick_signal() { return SIGRTMIN; }

void set_immediate_exit(kvm_run* run, u8 value) {
  std::atomic_ref{run->immediate_exit}.store(value, std::memory_order_seq_cst);
}

}  // namespace

void install_kick_signal() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ::sigemptyset(&action.sa_mask);
    ::sigaction(kick_signal(), &action, nullptr);  // without SA_RESTART
  });
}

KvmVcpu::KvmVcpu(Vm& vm, unsigned index, UniqueFd fd, kvm_run* run)
    : vm_{vm}, index_{index}, fd_{std::move(fd)}, run_{run}, counters_{kCounters} {}

KvmVcpu::~KvmVcpu() {
  if (ring_ != nullptr) ::munmap(ring_, vm_.ring_bytes);
  ::munmap(run_, vm_.host.run_bytes());
}

Result<std::unique_ptr<KvmVcpu>> KvmVcpu::create(Vm& vm, unsigned index) {
  UniqueFd fd{kvm_ioctl(vm.fd.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(index))};
  if (!fd) return fail_errno("KVM makes no vCPU {}", index);
  void* const area = ::mmap(nullptr, vm.host.run_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (area == MAP_FAILED) return fail_errno("cannot map the area of vCPU {}", index);
  std::unique_ptr<KvmVcpu> vcpu{new KvmVcpu{vm, index, std::move(fd), static_cast<kvm_run*>(area)}};
  BH_TRY(vcpu->set_up());
  return vcpu;
}

Result<void> KvmVcpu::set_up() {
  const std::vector<kvm_cpuid_entry2> entries = cpuid_entries(vm_.model, index_);
  std::vector<u64> storage((sizeof(kvm_cpuid2) + entries.size() * sizeof entries[0]) / 8 + 1);
  auto* const table = reinterpret_cast<kvm_cpuid2*>(storage.data());
  table->nent = static_cast<u32>(entries.size());
  std::copy(entries.begin(), entries.end(), table->entries);
  BH_TRY(call(KVM_SET_CPUID2, table, "the CPU model's CPUID"));
  if (vm_.host.check(KVM_CAP_ENFORCE_PV_FEATURE_CPUID) > 0) {
    kvm_enable_cap cap{};
    cap.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID;
    cap.args[0] = 1;
    BH_TRY(call(KVM_ENABLE_CAP, &cap, "paravirtual features by CPUID"));
  }
  if (vm_.ring_bytes != 0) {
    void* const ring = ::mmap(nullptr, vm_.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(),
                              static_cast<off_t>(KVM_DIRTY_LOG_PAGE_OFFSET * kPageSize));
    if (ring == MAP_FAILED) return fail_errno("cannot map the dirty ring of vCPU {}", index_);
    ring_ = static_cast<kvm_dirty_gfn*>(ring);
  }
  run_->kvm_valid_regs = vm_.hypercalls == HypercallWay::kPort ? u64{KVM_SYNC_X86_REGS} : 0;
  return {};
}

Result<void> KvmVcpu::call(unsigned long request, void* argument, const char* what) {
  if (kvm_ioctl(fd_.get(), request, argument) >= 0) return {};
  return fail_errno("KVM refuses {} of vCPU {}", what, index_);
}

// ---- from outside

void KvmVcpu::kick() {
  kicked_.store(true, std::memory_order_seq_cst);
  poke();
}

// The flag ends a KVM_RUN that has not begun, the signal one that has.
void KvmVcpu::poke() {
  set_immediate_exit(run_, 1);
  if (const int thread = thread_.load(std::memory_order_seq_cst); thread != 0)
    ::syscall(SYS_tgkill, ::getpid(), thread, kick_signal());
}

void KvmVcpu::inject_direct(u8 vector) {
  direct_.store(vector, std::memory_order_seq_cst);
  poke();
}

void KvmVcpu::want(const XenVcpuAttribute& attribute) {
  {
    Lock lock{wants_mutex_};
    wants_.push_back(attribute);
    wants_something_.store(true, std::memory_order_seq_cst);
  }
  poke();
}

bool KvmVcpu::look_after() {
  const u64 entries = entries_.load(std::memory_order_relaxed);
  if (wants_window()) {
    poke();
    return true;
  }
  const bool still = entries == entries_seen_ && thread_.load(std::memory_order_relaxed) != 0;
  if (still) {
    check_halt_.store(true, std::memory_order_relaxed);
    poke();
  }
  entries_seen_ = entries + (still ? 1 : 0);  // a poke ends a KVM_RUN
  return false;
}

// ---- on the vCPU's thread

void KvmVcpu::enter_thread() {
  if (thread_ready_) return;
  thread_ready_ = true;
  sigset_t kick;
  ::sigemptyset(&kick);
  ::sigaddset(&kick, kick_signal());
  ::pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
}

Exit& KvmVcpu::run() {
  enter_thread();
  if (failed_) return exit_;  // for good
  if (take_answer() == Step::kExit) return exit_;
  if (shut_down_) return exit_ = ShutdownExit{};
  while (enter() == Step::kGoOn) {
  }
  return exit_;
}

// Once into the guest. Whoever wants something of us writes it down, then pokes: either it is seen here, or KVM_RUN
// ends at once.
KvmVcpu::Step KvmVcpu::enter() {
  set_immediate_exit(run_, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const bool kicked = kicked_.exchange(false, std::memory_order_seq_cst);
  if (kicked && !incomplete_) return interrupted(true);
  if (wants_something_.load(std::memory_order_seq_cst) && !take_wants()) return Step::kExit;
  if (!incomplete_) {
    if (std::exchange(look_halted_, false) && halted_for_good()) {
      look_halted_ = true;
      exit_ = HaltExit{};
      return Step::kExit;
    }
    if (index_ == 0) offer_extint();
    if (direct_.load(std::memory_order_relaxed) >= 0) offer_direct();
  } else if (kicked || direct_.load(std::memory_order_relaxed) >= 0) {
    set_immediate_exit(run_, 1);  // completes, and no more
  }
  special_.reset();
  thread_.store(::gettid(), std::memory_order_seq_cst);
  const int result = ::ioctl(fd_.get(), KVM_RUN, 0);
  const int error = errno;
  thread_.store(0, std::memory_order_relaxed);
  entries_.fetch_add(1, std::memory_order_relaxed);
  counters_[kEntries].add();
  incomplete_ = false;
  if (result == 0 || run_->immediate_exit == 0 || run_->ready_for_interrupt_injection) given_.reset();
  if (result < 0 && (error == EINTR || error == EAGAIN)) return interrupted(kicked);
  if (kicked) kicked_.store(true, std::memory_order_relaxed);  // after this exit
  if (result < 0) return fail_run(error);
  return exited();
}

KvmVcpu::Step KvmVcpu::interrupted(bool kicked) {
  counters_[kInterruptions].add();
  if (kicked) {
    look_halted_ = true;
    exit_ = KickedExit{};
    return Step::kExit;
  }
  if (check_halt_.exchange(false, std::memory_order_relaxed)) look_halted_ = true;
  return Step::kGoOn;
}

// False: KVM refuses something that it said it can do.
bool KvmVcpu::take_wants() {
  Lock lock{wants_mutex_};
  wants_something_.store(false, std::memory_order_seq_cst);
  for (const XenVcpuAttribute& attribute : std::exchange(wants_, {}))
    if (const auto done = set_xen_attribute(fd_.get(), attribute); !done) {
      failure(done.error().message);
      return false;
    }
  return true;
}

// Interrupts off, and nothing there that is taken nevertheless.
bool KvmVcpu::halted_for_good() {
  kvm_mp_state mp{};
  kvm_regs registers{};
  kvm_vcpu_events events{};
  if (kvm_ioctl(fd_.get(), KVM_GET_MP_STATE, &mp) != 0 || mp.mp_state != KVM_MP_STATE_HALTED) return false;
  if (kvm_ioctl(fd_.get(), KVM_GET_REGS, &registers) != 0 || (registers.rflags & kInterruptFlag)) return false;
  if (kvm_ioctl(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0 || events.nmi.pending || events.nmi.injected)
    return false;
  counters_[kHalts].add();
  return true;
}

// KVM says after each KVM_RUN whether it would take an interrupt of the 8259's now; else it is asked to say when.
void KvmVcpu::offer_extint() {
  run_->request_interrupt_window = 0;
  if (!vm_.extint.load(std::memory_order_seq_cst) || vm_.extint_source == nullptr) return;
  if (!run_->ready_for_interrupt_injection) {
    run_->request_interrupt_window = 1;
    return;
  }
  const auto vector = vm_.extint_source->acknowledge();
  if (!vector) return;
  kvm_interrupt interrupt{*vector};
  (void)kvm_ioctl(fd_.get(), KVM_INTERRUPT, &interrupt);
  given_ = vector;
  counters_[kEvents].add();
  run_->ready_for_interrupt_injection = 0;
  if (vm_.extint.load(std::memory_order_seq_cst)) run_->request_interrupt_window = 1;
}

void KvmVcpu::offer_direct() {
  const int vector = direct_.load(std::memory_order_relaxed);
  const bool done = deliver_direct(static_cast<u8>(vector));
  int expected = vector;
  if (done) direct_.compare_exchange_strong(expected, -1);
  const bool wait = !done;
  if (wait == direct_waits_.exchange(wait, std::memory_order_relaxed) || !wait) return;
  vm_.window_wanted();
}

// As an interrupt that is on its way already: KVM checks nothing then, so we do.
bool KvmVcpu::deliver_direct(u8 vector) {
  kvm_regs registers{};
  kvm_vcpu_events events{};
  kvm_mp_state mp{};
  if (kvm_ioctl(fd_.get(), KVM_GET_MP_STATE, &mp) != 0 || kvm_ioctl(fd_.get(), KVM_GET_REGS, &registers) != 0 ||
      kvm_ioctl(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0)
    return false;
  if (mp.mp_state != KVM_MP_STATE_RUNNABLE && mp.mp_state != KVM_MP_STATE_HALTED) return false;
  if (!(registers.rflags & kInterruptFlag) || events.interrupt.shadow || events.interrupt.injected ||
      events.exception.injected || events.exception.pending || events.nmi.injected)
    return false;
  events.interrupt.injected = 1;
  events.interrupt.nr = vector;
  events.interrupt.soft = 0;
  events.flags = 0;
  if (kvm_ioctl(fd_.get(), KVM_SET_VCPU_EVENTS, &events) != 0) return false;
  if (mp.mp_state == KVM_MP_STATE_HALTED) {
    mp.mp_state = KVM_MP_STATE_RUNNABLE;
    (void)kvm_ioctl(fd_.get(), KVM_SET_MP_STATE, &mp);
  }
  counters_[kEvents].add();
  return true;
}

KvmVcpu::Step KvmVcpu::fail_run(int error) { return failure(fmt::format("KVM_RUN fails: {}", std::strerror(error))); }

u64 KvmVcpu::take_ring(const std::function<void(u32 slot, u64 page)>& take) {
  const u64 entries = vm_.ring_bytes / sizeof(kvm_dirty_gfn);
  u64 taken = 0;
  for (; taken < entries; ++taken, ++ring_next_) {
    kvm_dirty_gfn& entry = ring_[ring_next_ % entries];
    std::atomic_ref flags{entry.flags};
    if (!(flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_DIRTY)) break;
    take(entry.slot, entry.offset);
    flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
  }
  return taken;
}

void KvmVcpu::learn_tsc_offset() {
  u64 offset = 0;
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<u64>(&offset);
  if (kvm_ioctl(fd_.get(), KVM_GET_DEVICE_ATTR, &attribute) != 0) {
    MsrList tsc{1};
    tsc[0].index = 0x10;
    if (kvm_ioctl(fd_.get(), KVM_GET_MSRS, tsc.get()) != 1) return;
    offset = tsc[0].data - __rdtsc();
  }
  vm_.tsc_offset.store(offset, std::memory_order_relaxed);
}

}  // namespace bulkhead::engine::kvm
