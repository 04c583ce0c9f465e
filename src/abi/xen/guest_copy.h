// Structures in and out of the caller's memory: copied once, then judged.
#pragma once
#include <span>
#include <type_traits>

#include "abi/xen/counters.h"
#include "abi/xen/ports.h"

namespace bulkhead::abi::xen {

// A hypercall's caller, with bad pointers counted.
class Guest {
 public:
  Guest(Caller& who, DomainCounters& counters) : caller{who}, counters_{counters} {}

  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool read(u64 at, T& out) {
    return count(caller.read(at, std::as_writable_bytes(std::span{&out, 1})));
  }
  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool write(u64 at, const T& in) {
    return count(caller.write(at, std::as_bytes(std::span{&in, 1})));
  }
  [[nodiscard]] bool read_bytes(u64 at, std::span<std::byte> out) { return count(caller.read(at, out)); }
  [[nodiscard]] bool write_bytes(u64 at, std::span<const std::byte> in) { return count(caller.write(at, in)); }
  unsigned vcpu() const { return caller.vcpu(); }

  Caller& caller;

 private:
  bool count(bool good) {
    if (!good) counters_[kBadPointers].add();
    return good;
  }
  DomainCounters& counters_;
};

}  // namespace bulkhead::abi::xen
