// A PV vCPU that makes a hypercall. For this room only.
#pragma once
#include "abi/xen/pv/guest.h"

namespace bulkhead::abi::xen::pv {

// With 48 bits of address, which is what a PV guest is told that it has.
constexpr bool canonical(u64 address) { return sign_extend(address, 6) == address; }

struct Guest::Call final : Caller {
  Call(Guest& guest, Cpu& a_cpu) : cpu{a_cpu}, v{guest.record(a_cpu)}, bad_pointers{guest.counters_[kBadPointers]} {}
  unsigned vcpu() const override { return cpu.index(); }
  // The hypervisor's area is not the guest's to hand over, though some of it can be read.
  bool read(u64 gva, std::span<std::byte> out) override {
    const AsKernel as_kernel{cpu};
    return allowed(gva, out.size()) && cpu.read(gva, out);
  }
  bool write(u64 gva, std::span<const std::byte> in) override {
    const AsKernel as_kernel{cpu};
    return allowed(gva, in.size()) && cpu.write(gva, in);
  }
  // For our own calls: false is -EFAULT, and counted.
  template <class T>
  bool get(u64 gva, std::span<T> values) {
    return counted(read(gva, std::as_writable_bytes(values)));
  }
  template <class T>
  bool get(u64 gva, T& value) {
    return get(gva, std::span{&value, 1});
  }
  template <class T>
  bool put(u64 gva, const T& value) {
    return counted(write(gva, std::as_bytes(std::span{&value, 1})));
  }
  bool counted(bool good) {
    if (!good) bad_pointers.add();
    return good;
  }
  static bool allowed(u64 gva, u64 size) {
    return gva + size >= gva && (gva + size <= kMachineToPhysicalStart || gva >= Cpu::kKernelHalf);
  }

  // What the kernel is owed (runstate, time) is also written when the call was an iret to user mode.
  struct AsKernel {
    explicit AsKernel(Cpu& a_cpu) : cpu{a_cpu}, user{a_cpu.mode() == engine::GuestMode::kUser} {
      if (user) cpu.set_mode(engine::GuestMode::kKernel);
    }
    ~AsKernel() {
      if (user) cpu.set_mode(engine::GuestMode::kUser);
    }
    AsKernel(const AsKernel&) = delete;
    AsKernel& operator=(const AsKernel&) = delete;
    Cpu& cpu;
    const bool user;
  };
  // One call of several in a multicall: it cannot be taken up again, nor leave the kernel.
  bool nested(u64 number) const { return cpu.gpr()[Cpu::kRax] != number; }

  Cpu& cpu;
  VcpuRecord& v;
  telemetry::Counter& bad_pointers;
};

}  // namespace bulkhead::abi::xen::pv
