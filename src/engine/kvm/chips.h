// KVM's own IOAPIC and 8259s [kvm-api "KVM_CREATE_IRQCHIP"], for `kvm.irqchip=kernel`.
#pragma once
#include <atomic>

#include "engine/interrupt_controller.h"
#include "engine/kvm/kvm_api.h"

namespace bulkhead::engine::kvm {

class KernelChips final : public InterruptController {
 public:
  // Before any vCPU is made.
  static Result<std::unique_ptr<KernelChips>> create(int vm);
  void set_line(Gsi gsi, bool asserted) override;
  Result<std::unique_ptr<LineRegistration>> line_by_event(Gsi gsi, Trigger trigger) override;
  Result<InterruptControllerState> state() override;
  Result<void> set_state(const InterruptControllerState& state) override;

 private:
  explicit KernelChips(int vm) : vm_{vm} {}
  const int vm_;
  std::atomic<u32> lines_{0};
};

}  // namespace bulkhead::engine::kvm
