#include "engine/kvm/kvm_engine.h"

#include "engine/kvm/partition.h"

namespace bulkhead::engine::kvm {
namespace {

Result<KvmOptions> parse(const PartitionConfig& config) {
  KvmOptions options;
  for (const auto& [name, value] : config.options) {
    if (name == "kvm.dirty") {
      if (value != "log" && value != "ring") return fail("engine option kvm.dirty is '{}'; it is log or ring", value);
      options.dirty = value == "ring" ? KvmOptions::Dirty::kRing : KvmOptions::Dirty::kLog;
      continue;
    }
    if (name == "kvm.irqchip") {
      if (value != "auto" && value != "split" && value != "kernel")
        return fail("engine option kvm.irqchip is '{}'; it is auto, split or kernel", value);
      options.irqchip = value == "kernel"  ? KvmOptions::Irqchip::kKernel
                        : value == "split" ? KvmOptions::Irqchip::kSplit
                                           : KvmOptions::Irqchip::kAuto;
      continue;
    }
    if (name == "kvm.events") {
      if (value != "user" && value != "kernel")
        return fail("engine option kvm.events is '{}'; it is user or kernel", value);
      options.events = value == "kernel" ? KvmOptions::Events::kKernel : KvmOptions::Events::kUser;
      continue;
    }
    if (name != "kvm.xen")
      return fail("engine kvm does not know the option '{}'; it knows kvm.xen, kvm.events, kvm.irqchip and kvm.dirty",
                  name);
    if (value == "auto")
      options.xen = KvmOptions::Xen::kAuto;
    else if (value == "on")
      options.xen = KvmOptions::Xen::kOn;
    else if (value == "off")
      options.xen = KvmOptions::Xen::kOff;
    else
      return fail("engine option kvm.xen is '{}'; it is auto, on or off", value);
  }
  return options;
}

class KvmEngine final : public Engine {
 public:
  Probe probe() const override {
    Probe probe{.kind = EngineKind::kKvm, .usable = false, .reason = {}, .capabilities = {}};
    const auto host = KvmHost::open();
    if (!host) {
      probe.reason = host.error().message;
      return probe;
    }
    probe.usable = true;
    probe.capabilities = {.max_vcpus = host->max_vcpus(), .lapic_in_engine = true, .dirty_log = true};
    return probe;
  }

  Result<std::unique_ptr<Partition>> create(const PartitionConfig& config, GuestMemory& memory) override {
    BH_ASSIGN(const KvmOptions options, parse(config));
    BH_ASSIGN(KvmHost host, KvmHost::open());
    if (config.vcpus < 1 || config.vcpus > host.max_vcpus())
      return fail("engine kvm runs 1 to {} vCPUs here; {} were asked for", host.max_vcpus(), config.vcpus);
    if (config.cpu_model.leaves.empty()) return fail("engine kvm needs a CPU model; none was given");
    return KvmPartition::create(config, memory, std::move(host), options);
  }
};

}  // namespace

std::unique_ptr<Engine> make_kvm_engine() { return std::make_unique<KvmEngine>(); }

}  // namespace bulkhead::engine::kvm
