// A PV vCPU that makes a hypercall. For this room only.
#pragma once
#include "abi/xen/pv/guest.h"

namespace bulkhead::abi::xen::pv {

struct Guest::Call final : Caller {
  Call(Cpu& a_cpu, VcpuRecord& a_record) : cpu{a_cpu}, v{a_record} {}
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
  template <class T>
  bool get(u64 gva, T& value) {
    return read(gva, std::as_writable_bytes(std::span{&value, 1}));
  }
  template <class T>
  bool put(u64 gva, const T& value) {
    return write(gva, std::as_bytes(std::span{&value, 1}));
  }
  static bool allowed(u64 gva, u64 size) {
    constexpr u64 kStart = 0xffff800000000000, kEnd = 0xffff880000000000;
    return gva + size >= gva && (gva + size <= kStart || gva >= kEnd);
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
};

}  // namespace bulkhead::abi::xen::pv
