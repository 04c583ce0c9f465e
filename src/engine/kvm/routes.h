// Which vectors' EOIs KVM tells us of. With a split interrupt controller it tells only of level-triggered messages that
// are among the routes of the IOAPIC's pins [kvm-api "KVM_CAP_SPLIT_IRQCHIP"], so each such message becomes a route
// before it is sent for the first time. Behind these come the routes of interrupt registrations.
#pragma once
#include <vector>

#include "base/sync.h"
#include "bus/io.h"
#include "engine/kvm/kvm_api.h"

namespace bulkhead::engine::kvm {

class Routes {
 public:
  static constexpr u32 kPins = 24;  // what KVM_CAP_SPLIT_IRQCHIP is given
  explicit Routes(int vm) : vm_{vm} {}
  // The pins are those of KVM's own controllers: nobody need hear of EOIs. Once, before all else.
  void lead_to_chips();
  // Before KVM_SIGNAL_MSI of a level-triggered message. Any thread.
  void expect_eoi(Msi message);
  // A GSI of KVM's for an irqfd, kPins or above; it sends nothing until it has a message. Any thread.
  u32 add();
  void set(u32 gsi, const Msi* message);  // null: it sends nothing
  void remove(u32 gsi);

 private:
  struct Route {
    Msi message;
    bool used = false, on = false;
  };
  void publish() BH_REQUIRES(mutex_);
  bool chips_ BH_GUARDED_BY(mutex_) = false;

  const int vm_;
  Mutex mutex_;
  std::vector<Route> pins_ BH_GUARDED_BY(mutex_) = std::vector<Route>(kPins);
  std::vector<Route> others_ BH_GUARDED_BY(mutex_);
  u32 next_ BH_GUARDED_BY(mutex_) = 0;
};

}  // namespace bulkhead::engine::kvm
