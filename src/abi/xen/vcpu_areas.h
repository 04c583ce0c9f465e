// Where each vCPU's vcpu_info lies: in shared_info, or where the guest has registered it.
#pragma once
#include <xen/xen.h>

#include <array>
#include <atomic>

#include "abi/xen/domain.h"

namespace bulkhead::abi::xen {

// The guest writes all of this at any time, so every access is atomic and nothing read is trusted. Any thread;
// relocate() with events stopped.
class VcpuAreas {
 public:
  explicit VcpuAreas(std::byte* shared_info) : shared_{reinterpret_cast<shared_info_t*>(shared_info)} {
    for (unsigned i = 0; i < kMaxVcpus; ++i) info_[i].store(&shared_->vcpu_info[i], std::memory_order_relaxed);
  }

  shared_info_t& shared() const { return *shared_; }
  vcpu_info_t& info(unsigned vcpu) const { return *info_[vcpu].load(std::memory_order_acquire); }
  bool registered(unsigned vcpu) const { return &info(vcpu) != &shared_->vcpu_info[vcpu]; }
  void relocate(unsigned vcpu, vcpu_info_t* to) { info_[vcpu].store(to, std::memory_order_release); }

  bool pending(unsigned vcpu) const { return std::atomic_ref{info(vcpu).evtchn_upcall_pending}.load() != 0; }
  bool masked(unsigned vcpu) const { return std::atomic_ref{info(vcpu).evtchn_upcall_mask}.load() != 0; }
  void set_pending(unsigned vcpu, bool on) const { std::atomic_ref{info(vcpu).evtchn_upcall_pending}.store(on); }
  void set_masked(unsigned vcpu, bool on) const { std::atomic_ref{info(vcpu).evtchn_upcall_mask}.store(on); }
  bool upcall(unsigned vcpu) const { return pending(vcpu) && !masked(vcpu); }
  // True when it was not pending before: somebody has to be told.
  bool raise(unsigned vcpu) const { return std::atomic_ref{info(vcpu).evtchn_upcall_pending}.exchange(1) == 0; }

 private:
  shared_info_t* const shared_;
  std::array<std::atomic<vcpu_info_t*>, kMaxVcpus> info_;
};

}  // namespace bulkhead::abi::xen
