#include "engine/kvm/chips.h"

#include <sys/eventfd.h>

#include "base/assert.h"
#include "base/bits.h"
#include "engine/kvm/ioctl.h"

namespace bulkhead::engine::kvm {
namespace {

constexpr u64 kIoApicAt = 0xfec00000, kLevelTriggered = 1u << 15;

class LineEvent final : public LineRegistration {
 public:
  LineEvent(int vm, UniqueFd events, UniqueFd ended, u32 gsi)
      : vm_{vm}, gsi_{gsi}, events_{std::move(events)}, ended_{std::move(ended)} {}
  ~LineEvent() override { (void)attach(KVM_IRQFD_FLAG_DEASSIGN); }
  int attach(u32 flags) {
    kvm_irqfd asked{};
    asked.fd = static_cast<u32>(events_.get());
    asked.gsi = gsi_;
    asked.flags = flags;
    if (ended_ && !(flags & KVM_IRQFD_FLAG_DEASSIGN)) {
      asked.flags |= KVM_IRQFD_FLAG_RESAMPLE;
      asked.resamplefd = static_cast<u32>(ended_.get());
    }
    return kvm_ioctl(vm_, KVM_IRQFD, &asked);
  }
  int descriptor() const override { return events_.get(); }
  int ended() const override { return ended_ ? ended_.get() : -1; }

 private:
  const int vm_;
  const u32 gsi_;
  const UniqueFd events_, ended_;
};

Pic8259State from_kvm(const kvm_pic_state& in) {
  Pic8259State out;
  out.last_lines = in.last_irr, out.requested = in.irr, out.masked = in.imr, out.in_service = in.isr;
  out.lowest_priority = in.priority_add, out.vector_base = in.irq_base, out.edge_control = in.elcr;
  out.init_step = in.init_state;
  out.read_in_service = in.read_reg_select != 0, out.poll = in.poll != 0, out.special_mask = in.special_mask != 0;
  out.auto_eoi = in.auto_eoi != 0, out.rotate_on_auto_eoi = in.rotate_on_auto_eoi != 0;
  out.fully_nested = in.special_fully_nested_mode != 0, out.fourth_word = in.init4 != 0;
  return out;
}

// What a guest may not change (which lines have an ELCR bit) stays.
void to_kvm(const Pic8259State& in, kvm_pic_state& out) {
  out.last_irr = in.last_lines, out.irr = in.requested, out.imr = in.masked, out.isr = in.in_service;
  out.priority_add = in.lowest_priority, out.irq_base = in.vector_base, out.elcr = in.edge_control;
  out.init_state = in.init_step;
  out.read_reg_select = in.read_in_service, out.poll = in.poll, out.special_mask = in.special_mask;
  out.auto_eoi = in.auto_eoi, out.rotate_on_auto_eoi = in.rotate_on_auto_eoi;
  out.special_fully_nested_mode = in.fully_nested, out.init4 = in.fourth_word;
}

Result<kvm_irqchip> get(int vm, u32 number) {
  kvm_irqchip chip{};
  chip.chip_id = number;
  if (kvm_ioctl(vm, KVM_GET_IRQCHIP, &chip) != 0)
    return fail_errno("KVM does not tell interrupt controller {}", number);
  return chip;
}

Result<void> put(int vm, kvm_irqchip& chip) {
  if (kvm_ioctl(vm, KVM_SET_IRQCHIP, &chip) == 0) return {};
  return fail_errno("KVM refuses the state of interrupt controller {}", chip.chip_id);
}

}  // namespace

Result<std::unique_ptr<KernelChips>> KernelChips::create(int vm) {
  if (kvm_ioctl(vm, KVM_CREATE_IRQCHIP, 0ul) != 0)
    return fail_errno("KVM makes no interrupt controllers of its own; use the engine option kvm.irqchip=split");
  return std::unique_ptr<KernelChips>{new KernelChips{vm}};
}

void KernelChips::set_line(Gsi gsi, bool asserted) {
  BH_ASSERT(gsi.value < kLines);
  const u32 mask = 1u << gsi.value;
  const u32 before = asserted ? lines_.fetch_or(mask) : lines_.fetch_and(~mask);
  if (((before & mask) != 0) == asserted) return;
  kvm_irq_level line{};
  line.irq = gsi.value;
  line.level = asserted;
  (void)kvm_ioctl(vm_, KVM_IRQ_LINE, &line);
}

Result<std::unique_ptr<LineRegistration>> KernelChips::line_by_event(Gsi gsi, Trigger trigger) {
  BH_ASSERT(gsi.value < kLines);
  UniqueFd events{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)}, ended;
  if (trigger == Trigger::kLevel) ended = UniqueFd{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!events || (trigger == Trigger::kLevel && !ended)) return fail_errno("making an eventfd for an interrupt");
  auto line = std::make_unique<LineEvent>(vm_, std::move(events), std::move(ended), gsi.value);
  if (line->attach(0) != 0) return fail_errno("KVM refuses an eventfd for interrupt line {}", gsi.value);
  return line;
}

Result<InterruptControllerState> KernelChips::state() {
  InterruptControllerState out;
  BH_ASSIGN(const kvm_irqchip master, get(vm_, KVM_IRQCHIP_PIC_MASTER));
  BH_ASSIGN(const kvm_irqchip slave, get(vm_, KVM_IRQCHIP_PIC_SLAVE));
  BH_ASSIGN(const kvm_irqchip ioapic, get(vm_, KVM_IRQCHIP_IOAPIC));
  out.pics = {from_kvm(master.chip.pic), from_kvm(slave.chip.pic)};
  out.ioapic.id = static_cast<u8>(ioapic.chip.ioapic.id);
  out.ioapic.select = static_cast<u8>(ioapic.chip.ioapic.ioregsel);
  out.ioapic.pending = ioapic.chip.ioapic.irr;
  for (u32 pin = 0; pin < kLines; ++pin) out.ioapic.entries[pin] = ioapic.chip.ioapic.redirtbl[pin].bits;
  out.lines = lines_.load();
  return out;
}

Result<void> KernelChips::set_state(const InterruptControllerState& state) {
  for (u32 number = 0; number < 2; ++number) {
    BH_ASSIGN(kvm_irqchip chip, get(vm_, number == 0 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE));
    to_kvm(state.pics[number], chip.chip.pic);
    BH_TRY(put(vm_, chip));
  }
  kvm_irqchip chip{};
  chip.chip_id = KVM_IRQCHIP_IOAPIC;
  chip.chip.ioapic.base_address = kIoApicAt;
  chip.chip.ioapic.id = state.ioapic.id;
  chip.chip.ioapic.ioregsel = state.ioapic.select;
  chip.chip.ioapic.irr = state.ioapic.pending;
  for (u32 pin = 0; pin < kLines; ++pin) chip.chip.ioapic.redirtbl[pin].bits = state.ioapic.entries[pin];
  BH_TRY(put(vm_, chip));
  // Lines that are up: KVM learns of a level by set_line only. An edge that was there is not one again.
  lines_ = state.lines;
  for (u32 gsi = 0; gsi < kLines; ++gsi) {
    if (!bit(state.lines, gsi) || !(state.ioapic.entries[gsi == 0 ? 2 : gsi] & kLevelTriggered)) continue;
    kvm_irq_level line{};
    line.irq = gsi;
    line.level = 1;
    (void)kvm_ioctl(vm_, KVM_IRQ_LINE, &line);
  }
  return {};
}

}  // namespace bulkhead::engine::kvm
