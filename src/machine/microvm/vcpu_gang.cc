#include "machine/microvm/vcpu_gang.h"

#include <pthread.h>
#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/assert.h"
#include "engine/host_tsc.h"

namespace bulkhead::machine {
namespace {

// A vCPU that halted with interrupts off can still be woken, by an NMI or INIT from another one. It is asked this
// often.
constexpr std::chrono::milliseconds kHaltPoll{20};

// A vCPU that waits in a hypercall is also to take interrupts, which the engine does not tell us of: so its wait ends
// now and then, which the ABIs allow.
constexpr std::chrono::milliseconds kLongestWait{1};

AccessSize access_size(u8 bytes) {
  BH_ASSERT(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
  return static_cast<AccessSize>(bytes);
}

void access(Bus& bus, u64 address, u8 size, bool write, u64& value) {
  if (write)
    bus.write(address, value, access_size(size));
  else
    value = bus.read(address, access_size(size)).value;
}
}  // namespace

VcpuGang::VcpuGang(engine::Partition& partition, unsigned vcpus, Bus& ports, Bus& mmio)
    : partition_{partition},
      vcpus_{vcpus},
      ports_{ports},
      mmio_{mmio},
      ns_per_tick_{static_cast<u64>((u128{1'000'000'000} << 32) / engine::host_tsc_hz())},
      counters_{{"unknown_msr_reads", "unknown_msr_writes", "unknown_hypercalls"}},
      inert_(vcpus, false) {
  for (unsigned i = 0; i < vcpus; ++i) waiters_.push_back(std::make_unique<Waiter>());
}

Outcome VcpuGang::run() {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < vcpus_; ++i) {
    threads.emplace_back([this, i] { run_vcpu(i); });
    pthread_setname_np(threads.back().native_handle(), fmt::format("bh-vcpu-{}", i).c_str());
  }
  for (std::thread& thread : threads) thread.join();
  Lock lock{mutex_};
  BH_ASSERT(outcome_.has_value());
  // Here and not where it is noticed: only now no thread runs the first vCPU any more.
  if (outcome_->kind == Outcome::Kind::kHalted)
    outcome_->reason = "every vCPU has halted with interrupts off; vCPU 0: " + partition_.vcpu(0).describe();
  return *outcome_;
}

void VcpuGang::finish(Outcome outcome) {
  {
    Lock lock{mutex_};
    if (outcome_) return;
    outcome_ = std::move(outcome);
  }
  changed_.notify_all();
  for (unsigned i = 0; i < vcpus_; ++i) {
    wake(i);
    partition_.vcpu(i).kick();
  }
}

bool VcpuGang::ended() {
  Lock lock{mutex_};
  return outcome_.has_value();
}

void VcpuGang::run_vcpu(unsigned index) {
  engine::Vcpu& vcpu = partition_.vcpu(index);
  if (ended()) return;
  for (Next next = Next::kRun; next != Next::kEnd;) {
    engine::Exit& exit = vcpu.run();
    const u64 begin = __rdtsc();  // half the price of clock_gettime(), which a short answer would feel
    next = answer(index, exit);
    meter_.record(exit, static_cast<Nanoseconds>(u128{__rdtsc() - begin} * ns_per_tick_ >> 32));
    // Who runs on needs not look whether there is an outcome: finish() kicks every vCPU, so its next exit is a kick at
    // the latest. That keeps the lock out of the way of port accesses.
    if (next != Next::kWait) continue;
    wait_a_little();
    set_inert(index, false);
    if (ended()) return;
  }
}

// Answers one exit, by kind.
struct VcpuGang::Handler {
  VcpuGang& gang;
  unsigned index;

  Next operator()(engine::PortExit& exit) {
    access(gang.ports_, exit.port, exit.size, exit.write, exit.value);
    return Next::kRun;
  }
  Next operator()(engine::MmioExit& exit) {
    access(gang.mmio_, exit.address.value, exit.size, exit.write, exit.value);
    return Next::kRun;
  }
  Next operator()(engine::MsrExit& exit) {
    if (gang.abi_ != nullptr && gang.abi_->msr(index, exit)) return Next::kRun;
    gang.counters_[exit.write ? kUnknownMsrWrite : kUnknownMsrRead].add();
    exit.fault = true;  // #GP, as a processor without that MSR has it
    return Next::kRun;
  }
  // Where no ABI is announced nobody has a reason to call, and the exit says "unknown" already.
  Next operator()(engine::HypercallExit& exit) {
    if (gang.abi_ == nullptr) {
      gang.counters_[kUnknownHypercall].add();
      return Next::kRun;
    }
    switch (gang.abi_->hypercall(index, exit)) {
      case GuestAbi::Next::kRun:
        return Next::kRun;
      case GuestAbi::Next::kYield:
        std::this_thread::yield();
        return Next::kRun;
      case GuestAbi::Next::kWait:
        return gang.wait_for_abi(index, false);
      case GuestAbi::Next::kDown:
        return gang.wait_for_abi(index, true);
      case GuestAbi::Next::kEnd:
        return Next::kEnd;
    }
    return Next::kRun;
  }
  Next operator()(engine::HaltExit&) { return gang.halted(index); }
  Next operator()(engine::ShutdownExit& exit) {
    if (exit.reason == engine::ShutdownReason::kInit)
      gang.finish({Outcome::Kind::kReset, 0, {}});
    else
      gang.finish({Outcome::Kind::kTripleFault, 0,
                   fmt::format("triple fault on vCPU {}: {}", index, gang.partition_.vcpu(index).describe())});
    return Next::kEnd;
  }
  Next operator()(engine::KickedExit&) { return gang.kicked(index); }
  Next operator()(engine::FailureExit& exit) { return fail_engine(exit.reason); }

  Next fail_engine(const std::string& reason) {
    gang.finish({Outcome::Kind::kEngineFailure, 0, fmt::format("vCPU {}: {}", index, reason)});
    return Next::kEnd;
  }
};

VcpuGang::Next VcpuGang::answer(unsigned index, engine::Exit& exit) { return std::visit(Handler{*this, index}, exit); }

// The machine has halted when no vCPU can go on: each has either halted for good or still waits for its first start-up
// message. The latter sit in the engine, so they are kicked out to be counted. A vCPU is marked only while it is
// outside of run(), so that one which was woken meanwhile is never taken for dead.
VcpuGang::Next VcpuGang::halted(unsigned index) {
  set_inert(index, true);
  check_all_inert();
  kick_others(index);
  return Next::kWait;
}

VcpuGang::Next VcpuGang::kicked(unsigned index) {
  if (ended()) return Next::kEnd;
  if (partition_.vcpu(index).state().mp_state != engine::MpState::kWaitForSipi) return Next::kRun;
  set_inert(index, true);
  check_all_inert();
  set_inert(index, false);
  return ended() ? Next::kEnd : Next::kRun;
}

void VcpuGang::set_inert(unsigned index, bool inert) {
  Lock lock{mutex_};
  inert_[index] = inert;
}

void VcpuGang::check_all_inert() {
  {
    Lock lock{mutex_};
    if (!std::ranges::all_of(inert_, std::identity{})) return;
  }
  finish({Outcome::Kind::kHalted, 0, {}});
}

void VcpuGang::kick_others(unsigned index) {
  for (unsigned i = 0; i < vcpus_; ++i)
    if (i != index) partition_.vcpu(i).kick();
}

void VcpuGang::wake(unsigned index) {
  Waiter& waiter = *waiters_[index];
  {
    Lock lock{waiter.mutex};
    waiter.woken = true;
  }
  waiter.changed.notify_one();
}

VcpuGang::Next VcpuGang::wait_for_abi(unsigned index, bool only_until_may_run) {
  Waiter& waiter = *waiters_[index];
  while (!ended()) {
    if (abi_->may_run(index)) return Next::kRun;
    bool in_time = true;
    {
      Lock lock{waiter.mutex};
      if (!waiter.woken) in_time = waiter.changed.wait_for(waiter.mutex, kLongestWait) == std::cv_status::no_timeout;
      waiter.woken = false;
    }
    if (in_time || only_until_may_run) continue;
    abi_->end_wait(index);
    return Next::kRun;
  }
  return Next::kEnd;
}

void VcpuGang::wait_a_little() {
  std::unique_lock lock{mutex_.native()};
  changed_.wait_for(lock, kHaltPoll, [this]() BH_TSA(no_thread_safety_analysis) { return outcome_.has_value(); });
}

}  // namespace bulkhead::machine
