// Arguments of KVM_GET_MSRS and KVM_SET_MSRS.
#pragma once
#include <vector>

#include "base/ints.h"
#include "engine/kvm/kvm_api.h"

namespace bulkhead::engine::kvm {

class MsrList {
 public:
  explicit MsrList(std::size_t count) : storage_((sizeof(kvm_msrs) + count * sizeof(kvm_msr_entry)) / 8 + 1) {
    get()->nmsrs = static_cast<u32>(count);
  }
  kvm_msrs* get() { return reinterpret_cast<kvm_msrs*>(storage_.data()); }
  kvm_msr_entry& operator[](std::size_t index) { return (get()->entries + 0)[index]; }

 private:
  std::vector<u64> storage_;
};

}  // namespace bulkhead::engine::kvm
