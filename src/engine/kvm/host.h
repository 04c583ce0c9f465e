// /dev/kvm, opened, and what it can do. Source: Linux, Documentation/virt/kvm/api.rst [kvm-api].
#pragma once
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "engine/cpu_model.h"
#include "engine/kvm/kvm_api.h"

namespace bulkhead::engine::kvm {

class KvmHost {
 public:
  // Errors: one line each for a device that is not there, not permitted (names the group that may), of another API
  // version, or without something that we cannot do without.
  static Result<KvmHost> open(const std::string& path = "/dev/kvm");

  int fd() const { return fd_.get(); }
  int check(unsigned long capability) const;  // KVM_CHECK_EXTENSION: 0 where it is not there
  unsigned max_vcpus() const;
  std::size_t run_bytes() const { return run_bytes_; }  // of a vCPU's kvm_run
  std::vector<CpuidLeaf> supported_cpuid() const;       // KVM_GET_SUPPORTED_CPUID
  Result<UniqueFd> create_vm() const;

 private:
  explicit KvmHost(UniqueFd fd) : fd_{std::move(fd)} {}
  Result<void> check_needs();

  UniqueFd fd_;
  std::size_t run_bytes_ = 0;
};

}  // namespace bulkhead::engine::kvm
