// The engine on Linux's KVM. Options, the first value is the default:
// "kvm.xen" = "auto", "on", "off": whether KVM itself intercepts Xen's hypercalls, where the guest is told of Xen.
// "kvm.events" = "user", "kernel": who carries Xen's event channels and timers.
// "kvm.irqchip" = "auto", "split", "kernel": whose IOAPIC and 8259s.
// "kvm.dirty" = "log", "ring": how KVM tells which pages were written.
#pragma once
#include <memory>

#include "engine/engine.h"

namespace bulkhead::engine::kvm {

std::unique_ptr<Engine> make_kvm_engine();

}  // namespace bulkhead::engine::kvm
