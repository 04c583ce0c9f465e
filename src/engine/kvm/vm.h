// What the vCPUs of a KVM guest share.
#pragma once
#include <atomic>
#include <functional>
#include <vector>

#include "engine/engine.h"
#include "engine/kvm/host.h"
#include "engine/kvm/routes.h"

namespace bulkhead::engine::kvm {

// How a guest's hypercall reaches us: by KVM_EXIT_XEN, or by a port access that we know for one.
enum class HypercallWay : u8 { kNone, kXen, kPort };
// A port that no PC has anything at.
inline constexpr u16 kHypercallPort = 0xe8;

struct Vm {
  Vm(KvmHost host_in, UniqueFd fd_in, CpuModel model_in, GuestMemory& memory_in)
      : host{std::move(host_in)}, fd{std::move(fd_in)}, model{std::move(model_in)}, memory{memory_in} {}

  const KvmHost host;
  const UniqueFd fd;
  const CpuModel model;  // cut down to what KVM gives
  GuestMemory& memory;
  bool kvm_abi = false;  // the guest sees KVM's own
  HypercallWay hypercalls = HypercallWay::kNone;
  std::size_t xsave_bytes = 576;  // of the standard-format area, by the model
  std::vector<u32> msrs;          // of a vCPU's state, ascending
  Routes routes{fd.get()};

  u64 ring_bytes = 0;                       // of each vCPU's dirty ring; 0: there are none
  std::function<void()> ring_full = [] {};  // on the vCPU's thread
  std::atomic<bool> extint{false};          // the 8259's INT pin
  ExtIntSource* extint_source = nullptr;
  std::function<void(u8 vector)> eoi_handler;
  std::atomic<u64> tsc_offset{0};               // guest's TSC minus host's
  std::function<void()> window_wanted = [] {};  // some vCPU waits for a moment in which interrupts are on
};

}  // namespace bulkhead::engine::kvm
