#include "engine/kvm/routes.h"

#include "base/log.h"
#include "engine/kvm/ioctl.h"

namespace bulkhead::engine::kvm {

namespace {
// Where a line of a PC ends.
void add_line(kvm_irq_routing& table, u32 gsi) {
  const auto add = [&](u32 chip, u32 pin) {
    kvm_irq_routing_entry& entry = (table.entries + 0)[table.nr++];
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
  };
  if (gsi == 2) return;  // the cascade
  if (gsi < 16) add(gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
  add(KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi);
}
}  // namespace

void Routes::lead_to_chips() {
  Lock lock{mutex_};
  chips_ = true;
  publish();
}

void Routes::expect_eoi(Msi message) {
  Lock lock{mutex_};
  if (chips_) return;
  for (const Route& route : pins_)
    if (route.on && route.message.address == message.address && route.message.data == message.data) return;
  pins_[next_] = {message, true, true};  // the oldest goes: no IOAPIC has more pins than that
  next_ = (next_ + 1) % kPins;
  publish();
}

u32 Routes::add() {
  Lock lock{mutex_};
  for (u32 i = 0; i < others_.size(); ++i)
    if (!others_[i].used) {
      others_[i] = {{}, true, false};
      return kPins + i;
    }
  others_.push_back({{}, true, false});
  return kPins + static_cast<u32>(others_.size()) - 1;
}

void Routes::set(u32 gsi, const Msi* message) {
  Lock lock{mutex_};
  Route& route = others_[gsi - kPins];
  route.on = message != nullptr;
  if (message != nullptr) route.message = *message;
  publish();
}

void Routes::remove(u32 gsi) {
  Lock lock{mutex_};
  others_[gsi - kPins] = {};
  publish();
}

void Routes::publish() {
  std::vector<u64> storage(
      (sizeof(kvm_irq_routing) + (2 * pins_.size() + others_.size()) * sizeof(kvm_irq_routing_entry)) / 8 + 1);
  auto* const table = reinterpret_cast<kvm_irq_routing*>(storage.data());
  const auto add = [&](u32 gsi, const Route& route) {
    if (!route.on) return;
    kvm_irq_routing_entry& entry = table->entries[table->nr++];
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<u32>(route.message.address);
    entry.u.msi.address_hi = static_cast<u32>(route.message.address >> 32);
    entry.u.msi.data = route.message.data;
  };
  for (u32 i = 0; i < kPins; ++i) {
    if (chips_)
      add_line(*table, i);
    else
      add(i, pins_[i]);
  }
  for (u32 i = 0; i < others_.size(); ++i) add(kPins + i, others_[i]);
  if (kvm_ioctl(vm_, KVM_SET_GSI_ROUTING, table) != 0)
    log_warning("KVM takes no interrupt routes: {}", std::strerror(errno));
}

}  // namespace bulkhead::engine::kvm
