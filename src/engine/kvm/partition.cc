#include "engine/kvm/partition.h"

#include <x86intrin.h>

#include <algorithm>
#include <chrono>

#include "base/assert.h"
#include "base/thread.h"
#include "engine/kvm/cpuid.h"
#include "engine/kvm/ioctl.h"

namespace bulkhead::engine::kvm {
namespace {

// Pages that KVM wants for itself on some processors; nothing else is there [kvm-api "KVM_SET_TSS_ADDR"].
constexpr u64 kIdentityMap = 0xfffbc000, kTaskState = 0xfffbd000;
constexpr std::chrono::milliseconds kHaltCheck{100};
constexpr std::chrono::microseconds kWindowCheck{100};
constexpr u64 kMsiAddress = 0xfee00000;
constexpr u32 kLevel = 1u << 15, kDeliverNmi = 4u << 8;
constexpr u32 kXenHypercallMsr = 0x40000000;
constexpr u32 kXenHvmLeaf = 0x40000004, kUpcallByLapic = 1u << 6;

// Ascending. Those that the CPU model lacks are not read.
constexpr u32 kStateMsrs[] = {
    0x10,       0x1b,       0x3b,       0x48,       0x174,      0x175,      0x176,      0x1a0,      0x1d9,
    0x200,      0x201,      0x202,      0x203,      0x204,      0x205,      0x206,      0x207,      0x208,
    0x209,      0x20a,      0x20b,      0x20c,      0x20d,      0x20e,      0x20f,      0x250,      0x258,
    0x259,      0x268,      0x269,      0x26a,      0x26b,      0x26c,      0x26d,      0x26e,      0x26f,
    0x277,      0x2ff,      0x6e0,      0xda0,      0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04, 0x4b564d05,
    0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103, 0xc0010015, 0xc001011f};

enum class XenWay : u8 { kPort, kIntercept, kEvents };  // what of Xen's ABI is KVM's own

// Where KVM is to carry the guest's event channels, too, this says so.
Result<XenWay> choose_xen_way(const KvmHost& host, const CpuModel& model, const KvmOptions& options) {
  const u32 offered = static_cast<u32>(host.check(KVM_CAP_XEN_HVM));
  const bool able = (offered & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL) != 0;
  const bool foreign = calls_by_vmcall(model.lookup(0, 0).ebx) != host_calls_by_vmcall();
  if (options.xen == KvmOptions::Xen::kOn && !able)
    return fail("engine option kvm.xen is on, but this host's KVM cannot intercept Xen's hypercalls; leave it out");
  if (options.xen == KvmOptions::Xen::kOn && foreign)
    return fail(
        "engine option kvm.xen is on, but guests of the CPU model '{}' use the hypercall instruction of another "
        "vendor than this host's; leave it out",
        model.name);
  const bool intercept = able && !foreign && options.xen != KvmOptions::Xen::kOff;
  const bool events = intercept && (offered & kXenNeeds) == kXenNeeds;
  if (options.events == KvmOptions::Events::kKernel && !events)
    return fail("engine option kvm.events is kernel, but KVM {}; leave it out",
                intercept ? "on this host cannot carry Xen's event channels, as Linux 6.9 and later can"
                          : "does not intercept this guest's hypercalls");
  if (!intercept) return XenWay::kPort;
  return events && options.events == KvmOptions::Events::kKernel ? XenWay::kEvents : XenWay::kIntercept;
}

// An upcall by the LAPIC costs the guest an EOI, which is an exit on many hosts. KVM has a way that does not, and
// guests use it where they are not told of the other.
void prefer_direct_upcalls(CpuModel& model) {
  for (CpuidLeaf& leaf : model.leaves)
    if (leaf.leaf == kXenHvmLeaf) leaf.eax &= ~kUpcallByLapic;
}

}  // namespace

KvmPartition::KvmPartition(KvmHost host, UniqueFd fd, CpuModel model, GuestMemory& memory)
    : vm_{std::move(host), std::move(fd), std::move(model), memory}, slots_{vm_.fd.get(), memory} {}

Result<std::unique_ptr<Partition>> KvmPartition::create(const PartitionConfig& config, GuestMemory& memory,
                                                        KvmHost host, const KvmOptions& options) {
  install_kick_signal();
  BH_ASSIGN(CpuModel model, cut_to_kvm(config.cpu_model, host, config.abi));
  std::optional<XenWay> xen;
  if (config.abi == ParavirtAbi::kXen) {
    BH_ASSIGN(xen, choose_xen_way(host, model, options));
    if (xen == XenWay::kEvents) prefer_direct_upcalls(model);
  }
  BH_ASSIGN(UniqueFd fd, host.create_vm());
  std::unique_ptr<KvmPartition> partition{new KvmPartition{std::move(host), std::move(fd), std::move(model), memory}};
  if (xen) BH_TRY(partition->set_up_xen(*xen != XenWay::kPort, *xen == XenWay::kEvents));
  BH_TRY(partition->set_up(config, options));
  return partition;
}

Result<void> KvmPartition::set_up(const PartitionConfig& config, const KvmOptions& options) {
  const int vm = vm_.fd.get();
  u64 identity_map = kIdentityMap;
  if (kvm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0 || kvm_ioctl(vm, KVM_SET_TSS_ADDR, kTaskState) != 0)
    return fail_errno("KVM refuses a place for its own pages");
  BH_TRY(set_up_interrupts(options.irqchip));
  BH_TRY(enable(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER,
                "MSRs in user space"));
  vm_.kvm_abi = config.abi == ParavirtAbi::kKvm;
  BH_TRY(filter_msrs(vm_.kvm_abi));
  if (options.dirty == KvmOptions::Dirty::kRing) BH_TRY(set_up_rings());
  BH_TRY(slots_.install());
  vm_.xsave_bytes = std::max<std::size_t>(576, vm_.model.lookup(0xd, 0).ecx);
  if (vm_.xsave_bytes > sizeof(kvm_xsave))
    return fail("the CPU model's vector state has {} bytes; KVM is asked for {} at most", vm_.xsave_bytes,
                sizeof(kvm_xsave));
  for (unsigned i = 0; i < config.vcpus; ++i) {
    BH_ASSIGN(auto vcpu, KvmVcpu::create(vm_, i));
    vcpus_.push_back(std::move(vcpu));
  }
  vm_.msrs = vcpus_[0]->readable_msrs(kStateMsrs);
  vcpus_[0]->learn_tsc_offset();
  vm_.window_wanted = [this] {
    {
      const std::lock_guard lock{mutex_};
      window_wanted_ = true;
    }
    changed_.notify_all();
  };
  watcher_ = start_thread("bh-kvm-halts", [this] { look_after_halts(); });
  return {};
}

KvmPartition::~KvmPartition() {
  {
    const std::lock_guard lock{mutex_};
    ending_ = true;
  }
  changed_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

void KvmPartition::look_after_halts() {
  std::unique_lock lock{mutex_};
  while (!ending_) {
    if (window_wanted_)
      changed_.wait_for(lock, kWindowCheck, [this] { return ending_; });
    else
      changed_.wait_for(lock, kHaltCheck, [this] { return ending_ || window_wanted_; });
    window_wanted_ = false;
    for (const auto& vcpu : vcpus_)
      if (vcpu->look_after()) window_wanted_ = true;
  }
}

Result<void> KvmPartition::enable(u32 capability, u64 argument, const char* what) {
  kvm_enable_cap cap{};
  cap.cap = capability;
  cap.args[0] = argument;
  if (kvm_ioctl(vm_.fd.get(), KVM_ENABLE_CAP, &cap) == 0) return {};
  return fail_errno("KVM refuses {}", what);
}

// MSRs of hypervisors that the guest is not told of: KVM would answer some of them, and others by its own rules.
Result<void> KvmPartition::filter_msrs(bool kvm_abi) {
  std::array<u8, 64> none{};  // a bit for each: not KVM's
  kvm_msr_filter filter{};
  const auto deny = [&](std::size_t number, u32 base, u32 count) {
    filter.ranges[number] = {KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, count, base, none.data()};
  };
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  deny(0, 0x40000000, 0x200);
  if (!kvm_abi) {
    deny(1, 0x4b564d00, 0x100);
    deny(2, 0x11, 2);  // the same clocks by their old numbers
  }
  if (kvm_ioctl(vm_.fd.get(), KVM_X86_SET_MSR_FILTER, &filter) == 0) return {};
  return fail_errno("KVM takes no MSR filter");
}

Result<void> KvmPartition::set_up_xen(bool intercept, bool events) {
  vm_.hypercalls = HypercallWay::kPort;
  if (!intercept) return {};
  kvm_xen_hvm_config xen{};
  xen.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
  if (events) xen.flags |= KVM_XEN_HVM_CONFIG_EVTCHN_SEND;
  xen.msr = kXenHypercallMsr + 0xff;  // not the guest's: the machine fills its hypercall page
  if (kvm_ioctl(vm_.fd.get(), KVM_XEN_HVM_CONFIG, &xen) != 0)
    return fail_errno("KVM refuses to intercept Xen's hypercalls");
  vm_.hypercalls = HypercallWay::kXen;
  if (events) events_ = std::make_unique<KvmXenEvents>(vm_.fd.get(), vcpus_);
  return {};
}

std::vector<u8> KvmPartition::hypercall_code() const {
  if (vm_.hypercalls == HypercallWay::kPort) return {0xe7, static_cast<u8>(kHypercallPort)};  // out kHypercallPort, eax
  return {0x0f, 0x01, static_cast<u8>(host_calls_by_vmcall() ? 0xc1 : 0xd9)};
}

Result<void> KvmPartition::set_up_interrupts(KvmOptions::Irqchip wanted) {
  if (wanted != KvmOptions::Irqchip::kSplit) {
    auto chips = KernelChips::create(vm_.fd.get());
    if (!chips && wanted == KvmOptions::Irqchip::kKernel) return std::unexpected{chips.error()};
    if (chips) chips_ = std::move(*chips);
  }
  if (chips_ == nullptr) return enable(KVM_CAP_SPLIT_IRQCHIP, Routes::kPins, "a split interrupt controller");
  vm_.routes.lead_to_chips();
  return {};
}

Vcpu& KvmPartition::vcpu(unsigned index) {
  BH_ASSERT(index < vcpus_.size());
  return *vcpus_[index];
}

void KvmPartition::set_extint(bool asserted) {
  if (vm_.extint.exchange(asserted) == asserted || !asserted) return;
  vcpus_[0]->poke();
}

void KvmPartition::inject_nmi(unsigned vcpu) { send({kMsiAddress | u64{vcpu} << 12, kDeliverNmi}); }

void KvmPartition::inject_direct(unsigned vcpu, u8 vector) {
  BH_ASSERT(vcpu < vcpus_.size());
  vcpus_[vcpu]->inject_direct(vector);
}

Result<void> KvmPartition::set_up_rings() {
  const u32 capability =
      vm_.host.check(KVM_CAP_DIRTY_LOG_RING_ACQ_REL) > 0 ? KVM_CAP_DIRTY_LOG_RING_ACQ_REL : KVM_CAP_DIRTY_LOG_RING;
  const u64 most = static_cast<u64>(vm_.host.check(capability));
  if (most == 0) return fail("engine option kvm.dirty is ring, but this host's KVM has no dirty rings; use log");
  vm_.ring_bytes = std::min<u64>(most, u64{4096} * sizeof(kvm_dirty_gfn));
  BH_TRY(enable(capability, vm_.ring_bytes, "dirty rings"));
  slots_.use_rings();
  vm_.ring_full = [this] { harvest(); };
  return {};
}

// What the rings hold goes into the bits; then KVM may use the entries again.
void KvmPartition::harvest() {
  const std::lock_guard lock{ring_mutex_};
  u64 taken = 0;
  for (const auto& vcpu : vcpus_) taken += vcpu->take_ring([this](u32 slot, u64 page) { slots_.note(slot, page); });
  if (taken != 0) (void)kvm_ioctl(vm_.fd.get(), KVM_RESET_DIRTY_RINGS);
}

Result<void> KvmPartition::track_writes(bool on) {
  if (vm_.ring_bytes != 0) harvest();
  return slots_.track(on);
}

Result<std::vector<u64>> KvmPartition::take_written() {
  if (vm_.ring_bytes != 0) harvest();
  return slots_.take();
}

u64 KvmPartition::guest_tsc() const { return __rdtsc() + vm_.tsc_offset.load(std::memory_order_relaxed); }

void KvmPartition::send(Msi message) {
  if (message.data & kLevel) vm_.routes.expect_eoi(message);
  kvm_msi msi{};
  msi.address_lo = static_cast<u32>(message.address);
  msi.address_hi = static_cast<u32>(message.address >> 32);
  msi.data = message.data;
  (void)kvm_ioctl(vm_.fd.get(), KVM_SIGNAL_MSI, &msi);  // one that nobody takes is lost, as on a PC
}

}  // namespace bulkhead::engine::kvm
