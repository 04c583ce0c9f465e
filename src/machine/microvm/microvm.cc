#include "machine/microvm/microvm.h"

#include <algorithm>
#include <utility>

#include "abi/kvm/kvm_leaves.h"
#include "abi/xen/pvh_interface.h"
#include "base/bits.h"
#include "base/timer_service.h"
#include "machine/microvm/board.h"
#include "machine/microvm/boot.h"
#include "machine/microvm/layout.h"
#include "machine/microvm/vcpu_gang.h"
#include "machine/microvm/xen_abi.h"
#include "machine/microvm/xen_store.h"
#include "machine/xen/statistics.h"

namespace bulkhead::machine {
namespace {

Result<void> check(const MicrovmConfig& config, const engine::Engine& engine) {
  const engine::Probe probe = engine.probe();
  const std::string_view name = engine::engine_name(probe.kind);
  if (!probe.usable) return fail("the engine {} cannot be used here: {}", name, probe.reason);
  const unsigned most = std::min(layout::kMaxVcpus, probe.capabilities.max_vcpus);
  if (config.vcpus < 1 || config.vcpus > most)
    return fail("{} vCPUs are out of range: the machine microvm on the engine {} has 1 to {}", config.vcpus, name,
                most);
  if (config.memory_bytes < layout::kMinMemory || config.memory_bytes > layout::kMaxMemory)
    return fail("{} bytes of memory are out of range: the machine microvm has {} MiB to {} GiB", config.memory_bytes,
                layout::kMinMemory >> 20, layout::kMaxMemory >> 30);
  if (!is_aligned(config.memory_bytes, kPageSize))
    return fail("{} bytes of memory are not a whole number of pages (4096 bytes)", config.memory_bytes);
  return {};
}

// Members are in the order in which they depend on those before them.
class MicrovmMachine final : public Microvm {
 public:
  explicit MicrovmMachine(GuestMemory memory) : memory_{std::move(memory)} {}

  Result<void> build(engine::Engine& engine, const MicrovmConfig& config) {
    engine::PartitionConfig partition_config;
    partition_config.vcpus = vcpus_ = config.vcpus;
    BH_ASSIGN(partition_config.cpu_model, engine::make_cpu_model(config.cpu_model, config.vcpus));
    if (config.abi == Abi::kXen) {
      partition_config.abi = engine::ParavirtAbi::kXen;
      partition_config.cpu_model = abi::xen::with_xen_leaves(std::move(partition_config.cpu_model), XenAbi::kDomid);
    }
    if (config.abi == Abi::kKvm) {
      partition_config.abi = engine::ParavirtAbi::kKvm;
      partition_config.cpu_model = abi::kvm::with_kvm_leaves(std::move(partition_config.cpu_model));
    }
    partition_config.options = config.engine_options;
    BH_ASSIGN(partition_, engine.create(partition_config, memory_));
    BH_ASSIGN(board_, Board::create(config, *partition_, memory_, timers_,
                                    [this](Outcome outcome) { gang_->finish(std::move(outcome)); }));
    gang_ = std::make_unique<VcpuGang>(*partition_, vcpus_, board_->ports(), board_->mmio());
    if (config.abi == Abi::kXen) BH_TRY(offer_xen(partition_config.cpu_model, config));
    return boot(config);
  }

  Outcome run() override { return gang_->run(); }
  void stop() override { gang_->finish({Outcome::Kind::kStopped, 0, {}}); }
  std::vector<ExitStatistics> exit_statistics() const override { return gang_->meter().statistics(); }
  std::vector<DiskStatistics> disk_statistics() const override { return board_->disk_statistics(); }
  std::vector<NetworkStatistics> network_statistics() const override { return board_->network_statistics(); }
  std::string kernel_description() const override { return description_; }

  Result<Asked> request_shutdown(ShutdownRequest what) override {
    if (xen_store_ == nullptr) return Microvm::request_shutdown(what);
    return xen_store_->control().request(what);
  }

  std::vector<HypercallStatistics> hypercall_statistics() const override {
    if (xen_ == nullptr) return {};
    return machine::hypercall_statistics(xen_->domain());
  }

  std::vector<std::pair<std::string, u64>> engine_counters() const override {
    telemetry::CounterSums sums;
    for (unsigned i = 0; i < vcpus_; ++i) sums.add(partition_->vcpu(i).counters());
    sums.add(gang_->counters());
    if (xen_ != nullptr) sums.add(xen_->domain().counters(), "xen_");
    if (xen_store_ != nullptr) {
      sums.add(xen_store_->store().counters());
      sums.add(xen_store_->control().counters());
    }
    sums.add("unclaimed_port_accesses", board_->ports().unclaimed());
    sums.add("unclaimed_mmio_accesses", board_->mmio().unclaimed());
    return sums.all();
  }

 private:
  Result<void> offer_xen(const engine::CpuModel& model, const MicrovmConfig& config) {
    xen_ =
        std::make_unique<XenAbi>(model, vcpus_, *partition_, memory_, timers_,
                                 XenAbi::Ports{.wake = [this](unsigned vcpu) { gang_->wake(vcpu); },
                                               .finish = [this](Outcome outcome) { gang_->finish(std::move(outcome)); },
                                               .pulse_gsi = [this](u32 gsi) { board_->pulse(Gsi{gsi}); }});
    BH_TRY(xen_->start());
    gang_->set_abi(xen_.get());
    BH_ASSIGN(xen_store_, XenStore::open(*xen_, config));
    return {};
  }

  Result<void> boot(const MicrovmConfig& config) {
    engine::VcpuState state = partition_->vcpu(0).state();
    BH_ASSIGN(description_,
              prepare_boot(config, board_->virtio_windows(), memory_, partition_->hypercall_code(), state));
    return partition_->vcpu(0).set_state(state);
  }

  GuestMemory memory_;
  HostTimerService timers_;
  unsigned vcpus_ = 1;
  std::unique_ptr<engine::Partition> partition_;
  std::unique_ptr<Board> board_;
  std::unique_ptr<VcpuGang> gang_;
  std::unique_ptr<XenAbi> xen_;
  std::unique_ptr<XenStore> xen_store_;
  std::string description_;
};
}  // namespace

Result<std::unique_ptr<Microvm>> Microvm::create(engine::Engine& engine, MicrovmConfig config) {
  BH_TRY(check(config, engine));
  const u64 extra_pages = config.abi == Abi::kXen ? u64{XenAbi::kPages} : 0;
  BH_ASSIGN(GuestMemory memory, GuestMemory::create_pc(config.memory_bytes, layout::kHoleStart, extra_pages));
  auto machine = std::make_unique<MicrovmMachine>(std::move(memory));
  BH_TRY(machine->build(engine, config));
  return machine;
}

}  // namespace bulkhead::machine
