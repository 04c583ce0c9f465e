// The engine on Linux's KVM. Option: "kvm.xen" = "auto" (default), "on" or "off": whether KVM itself intercepts Xen's
// hypercalls, where the guest is told of Xen. "kvm.events" = "auto" (default), "kernel" or "user": who
// carries Xen's event channels and timers. "kvm.dirty" = "log" (default) or "ring": how KVM tells which pages were
// written.
#pragma once
#include <memory>

#include "engine/engine.h"

namespace bulkhead::engine::kvm {

std::unique_ptr<Engine> make_kvm_engine();

}  // namespace bulkhead::engine::kvm
