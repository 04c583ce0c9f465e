// xenstore for a PVH guest, and what can be asked of its kernel through it. There are no split devices in it, and no
// Xen console: disks and consoles are virtio's here.
#pragma once
#include <memory>

#include "base/result.h"
#include "device/xenbus/store/domain_zero.h"
#include "device/xenbus/store/server.h"
#include "device/xenbus/store/store.h"
#include "machine/microvm/microvm.h"
#include "machine/microvm/xen_abi.h"
#include "machine/xen/control.h"
#include "machine/xen/ports.h"

namespace bulkhead::machine {

class XenStore {
 public:
  // Before the vCPUs run: sets the HVM parameters by which the guest finds the ring. `abi` outlives us.
  static Result<std::unique_ptr<XenStore>> open(XenAbi& abi, const MicrovmConfig& config);
  device::xenbus::store::Store& store() { return store_; }
  const device::xenbus::store::Store& store() const { return store_; }
  XenControl& control() { return control_; }
  const XenControl& control() const { return control_; }

 private:
  explicit XenStore(XenAbi& abi) : events_{abi.domain()} {}
  Result<void> serve(XenAbi& abi, const MicrovmConfig& config);

  XenEventPort events_;
  device::xenbus::store::Store store_;
  device::xenbus::store::DomainZero zero_{store_, XenAbi::kDomid};
  XenControl control_{zero_, XenAbi::kDomid};
  std::unique_ptr<device::xenbus::store::StoreServer> server_;
};

}  // namespace bulkhead::machine
