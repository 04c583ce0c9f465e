#include "engine/kvm/host.h"

#include <fcntl.h>

#include "engine/kvm/ioctl.h"
#include "engine/probe.h"

namespace bulkhead::engine::kvm {
namespace {

struct Need {
  unsigned long capability;
  const char* what;
};
constexpr Need kNeeds[] = {{KVM_CAP_USER_MEMORY, "guest memory from user space (KVM_CAP_USER_MEMORY)"},
                           {KVM_CAP_SPLIT_IRQCHIP, "a split interrupt controller (KVM_CAP_SPLIT_IRQCHIP)"},
                           {KVM_CAP_IMMEDIATE_EXIT, "immediate exits (KVM_CAP_IMMEDIATE_EXIT)"},
                           {KVM_CAP_SIGNAL_MSI, "messages (KVM_CAP_SIGNAL_MSI)"},
                           {KVM_CAP_IRQ_ROUTING, "interrupt routes (KVM_CAP_IRQ_ROUTING)"},
                           {KVM_CAP_VCPU_EVENTS, "vCPU events (KVM_CAP_VCPU_EVENTS)"},
                           {KVM_CAP_XSAVE, "XSAVE state (KVM_CAP_XSAVE)"},
                           {KVM_CAP_XCRS, "extended control registers (KVM_CAP_XCRS)"},
                           {KVM_CAP_MP_STATE, "multi-processor states (KVM_CAP_MP_STATE)"},
                           {KVM_CAP_X86_USER_SPACE_MSR, "MSRs in user space (KVM_CAP_X86_USER_SPACE_MSR)"},
                           {KVM_CAP_X86_MSR_FILTER, "MSR filters (KVM_CAP_X86_MSR_FILTER)"},
                           {KVM_CAP_SYNC_REGS, "shared registers (KVM_CAP_SYNC_REGS)"},
                           {KVM_CAP_GET_TSC_KHZ, "the TSC's rate (KVM_CAP_GET_TSC_KHZ)"}};

}  // namespace

Result<KvmHost> KvmHost::open(const std::string& path) {
  UniqueFd fd{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
  if (!fd) {
    const int error = errno;
    if (error == ENOENT)
      return fail("there is no {}: load the module kvm_intel or kvm_amd, or use an engine that needs none", path);
    if (error == EACCES || error == EPERM)
      return fail("{} does not open: {}; {} may open it", path, std::strerror(error), who_may_open(path));
    return fail("{} does not open: {}", path, std::strerror(error));
  }
  const int version = kvm_ioctl(fd.get(), KVM_GET_API_VERSION);
  if (version < 0) return fail_errno("{} is not KVM: asking for its API version", path);
  if (version != KVM_API_VERSION)
    return fail("{} speaks version {} of KVM's API; version {} is needed, which every kernel since 2.6.22 has", path,
                version, KVM_API_VERSION);
  KvmHost host{std::move(fd)};
  BH_TRY(host.check_needs());
  return host;
}

Result<void> KvmHost::check_needs() {
  for (const Need& need : kNeeds)
    if (check(need.capability) <= 0) return fail("this host's KVM lacks {}: a kernel from 5.11 on has it", need.what);
  const int size = kvm_ioctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE);
  if (size < static_cast<int>(sizeof(kvm_run))) return fail("this host's KVM has vCPU areas of {} bytes only", size);
  run_bytes_ = static_cast<std::size_t>(size);
  return {};
}

int KvmHost::check(unsigned long capability) const {
  return std::max(0, kvm_ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability));
}

unsigned KvmHost::max_vcpus() const {
  const int most = check(KVM_CAP_MAX_VCPUS);
  return most > 0 ? static_cast<unsigned>(most) : 4;  // so says [kvm-api "KVM_CREATE_VCPU"]
}

std::vector<CpuidLeaf> KvmHost::supported_cpuid() const {
  for (u32 room = 128; room <= 4096; room *= 2) {
    std::vector<u64> storage((sizeof(kvm_cpuid2) + room * sizeof(kvm_cpuid_entry2)) / 8 + 1);
    auto* const table = reinterpret_cast<kvm_cpuid2*>(storage.data());
    table->nent = room;
    if (kvm_ioctl(fd_.get(), KVM_GET_SUPPORTED_CPUID, table) != 0) {
      if (errno == E2BIG) continue;
      return {};
    }
    std::vector<CpuidLeaf> leaves;
    for (u32 i = 0; i < table->nent; ++i) {
      const kvm_cpuid_entry2& entry = table->entries[i];
      leaves.push_back({entry.function, entry.index, entry.eax, entry.ebx, entry.ecx, entry.edx});
    }
    return leaves;
  }
  return {};
}

Result<UniqueFd> KvmHost::create_vm() const {
  UniqueFd vm{kvm_ioctl(fd_.get(), KVM_CREATE_VM)};
  if (!vm) return fail_errno("KVM makes no virtual machine");
  return vm;
}

}  // namespace bulkhead::engine::kvm
