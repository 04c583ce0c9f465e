#include "machine/microvm/xen_store.h"

#include <xen/hvm/params.h>

#include "device/xenbus/store/setup_domain.h"
#include "machine/microvm/layout.h"
#include "machine/xen/uuid.h"

namespace bulkhead::machine {
namespace store = device::xenbus::store;

Result<std::unique_ptr<XenStore>> XenStore::open(XenAbi& abi, const MicrovmConfig& config) {
  std::unique_ptr<XenStore> made{new XenStore{abi}};
  BH_TRY(made->serve(abi, config));
  return made;
}

Result<void> XenStore::serve(XenAbi& abi, const MicrovmConfig& config) {
  constexpr u64 kFrame = layout::kXenStorePage.value / kPageSize;
  BH_ASSIGN(const u32 port, abi.domain().events().alloc_unbound_for_guest());
  store::DomainDescription description;
  description.domain = XenAbi::kDomid;
  description.name = config.name;
  description.uuid = uuid_text(abi.domain().config().uuid);
  description.type = "pvh";
  description.memory_kib = config.memory_bytes >> 10;
  description.vcpus = config.vcpus;
  description.kernel = config.kernel_path;
  description.ramdisk = config.initrd_path;
  description.command_line = config.command_line;
  description.store = {port, kFrame};
  BH_TRY(store::setup_domain(store_, description));
  BH_ASSIGN(server_, store::StoreServer::open(store_, XenAbi::kDomid, abi.store_page(), events_, port));
  abi.domain().set_hvm_param(HVM_PARAM_STORE_PFN, kFrame);
  abi.domain().set_hvm_param(HVM_PARAM_STORE_EVTCHN, port);
  return {};
}

}  // namespace bulkhead::machine
