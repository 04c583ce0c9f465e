// ioeventfd and irqfd [kvm-api "KVM_IOEVENTFD", "KVM_IRQFD"].
#include <sys/eventfd.h>

#include "engine/kvm/ioctl.h"
#include "engine/kvm/partition.h"

namespace bulkhead::engine::kvm {
namespace {

class Ioeventfd final : public Registration {
 public:
  Ioeventfd(int vm, const kvm_ioeventfd& asked) : vm_{vm}, asked_{asked} {}
  ~Ioeventfd() override {
    asked_.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    (void)kvm_ioctl(vm_, KVM_IOEVENTFD, &asked_);
  }

 private:
  const int vm_;
  kvm_ioeventfd asked_;
};

class Irqfd final : public InterruptRegistration {
 public:
  Irqfd(Vm& vm, UniqueFd events) : vm_{vm}, events_{std::move(events)}, gsi_{vm.routes.add()} {}
  ~Irqfd() override {
    (void)attach(KVM_IRQFD_FLAG_DEASSIGN);
    vm_.routes.remove(gsi_);
  }
  int attach(u32 flags) {
    kvm_irqfd asked{};
    asked.fd = static_cast<u32>(events_.get());
    asked.gsi = gsi_;
    asked.flags = flags;
    return kvm_ioctl(vm_.fd.get(), KVM_IRQFD, &asked);
  }
  int descriptor() const override { return events_.get(); }
  void set_message(const std::optional<Msi>& message) override { vm_.routes.set(gsi_, message ? &*message : nullptr); }

 private:
  Vm& vm_;
  const UniqueFd events_;
  const u32 gsi_;
};

}  // namespace

Result<std::unique_ptr<Registration>> KvmPartition::notify_on_write(const WritePlace& place, int eventfd) {
  kvm_ioeventfd asked{};
  asked.addr = place.address;
  asked.len = place.size;
  asked.fd = eventfd;
  asked.datamatch = place.value.value_or(0);
  if (place.value) asked.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
  if (place.space == WritePlace::Space::kPort) asked.flags |= KVM_IOEVENTFD_FLAG_PIO;
  if (kvm_ioctl(vm_.fd.get(), KVM_IOEVENTFD, &asked) != 0)
    return fail_errno("KVM refuses an eventfd for writes of {} bytes at {:#x}", place.size, place.address);
  return std::make_unique<Ioeventfd>(vm_.fd.get(), asked);
}

Result<std::unique_ptr<InterruptRegistration>> KvmPartition::interrupt_on_event() {
  UniqueFd events{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!events) return fail_errno("making an eventfd for an interrupt");
  auto irqfd = std::make_unique<Irqfd>(vm_, std::move(events));
  if (irqfd->attach(0) != 0) return fail_errno("KVM refuses an eventfd for an interrupt");
  return irqfd;
}

}  // namespace bulkhead::engine::kvm
