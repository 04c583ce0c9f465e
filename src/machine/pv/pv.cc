#include "machine/pv/pv.h"

#include "abi/xen/pv/builder.h"
#include "abi/xen/pv/cpu_policy.h"
#include "base/bits.h"
#include "base/timer_service.h"
#include "bus/bus.h"
#include "device/xenbus/bus/backend_bus.h"
#include "device/xenbus/channel/channel.h"
#include "device/xenbus/console/console_backend.h"
#include "device/xenbus/net/net_backend.h"
#include "device/xenbus/store/domain_zero.h"
#include "device/xenbus/store/server.h"
#include "device/xenbus/store/setup_domain.h"
#include "machine/microvm/vcpu_gang.h"
#include "machine/pv/xen_disks.h"
#include "machine/xen/control.h"
#include "machine/xen/ports.h"
#include "machine/xen/statistics.h"
#include "machine/xen/uuid.h"

namespace bulkhead::machine {
namespace {

namespace xen = abi::xen;
namespace pv = abi::xen::pv;
namespace xenbus = device::xenbus;

constexpr u16 kDomain = 1;
constexpr u32 kConsoleGrant = 0, kStoreGrant = 1;  // GNTTAB_RESERVED_CONSOLE, _XENSTORE [xen/grant_table.h]

Result<void> check(const PvConfig& config, const engine::Engine& engine) {
  const engine::Probe probe = engine.probe();
  const std::string_view name = engine::engine_name(probe.kind);
  if (!probe.usable) return fail("the engine {} cannot be used here: {}", name, probe.reason);
  const unsigned most = std::min(Pv::kMaxVcpus, probe.capabilities.max_vcpus);
  if (config.vcpus < 1 || config.vcpus > most)
    return fail("{} vCPUs are out of range: the machine pv on the engine {} has 1 to {}", config.vcpus, name, most);
  if (config.memory_bytes < Pv::kMinMemory || config.memory_bytes > Pv::kMaxMemory)
    return fail("{} bytes of memory are out of range: the machine pv has {} MiB to {} GiB", config.memory_bytes,
                Pv::kMinMemory >> 20, Pv::kMaxMemory >> 30);
  if (!is_aligned(config.memory_bytes, kPageSize))
    return fail("{} bytes of memory are not a whole number of pages (4096 bytes)", config.memory_bytes);
  return {};
}

Outcome outcome_of(xen::ShutdownReason reason, const std::string& crash) {
  switch (reason) {
    case xen::ShutdownReason::kPowerOff:
      return {Outcome::Kind::kPowerOff, 0, {}};
    case xen::ShutdownReason::kReboot:
      return {Outcome::Kind::kReset, 0, {}};
    case xen::ShutdownReason::kWatchdog:
      return {Outcome::Kind::kCrashed, 0, "the guest's watchdog ran out"};
    case xen::ShutdownReason::kSuspend:  // never told: the ABI lets the guest go on
    case xen::ShutdownReason::kCrash:
      break;
  }
  return {Outcome::Kind::kCrashed, 0, crash.empty() ? "the guest kernel says that it crashed" : crash};
}

// Members are in the order in which they depend on those before them.
class PvMachine final : public Pv {
 public:
  PvMachine(GuestMemory memory, const pv::Layout& layout) : memory_{std::move(memory)}, layout_{layout} {}

  ~PvMachine() override {
    channels_.clear();
    bus_.reset();  // its devices let go of grants and events before these go
  }

  Result<void> build(engine::Engine& engine, const PvConfig& config) {
    vcpus_ = config.vcpus;
    engine::PartitionConfig partition_config;
    partition_config.vcpus = config.vcpus;
    BH_ASSIGN(engine::CpuModel model, engine::make_cpu_model(config.cpu_model, config.vcpus));
    const u64 tsc_hz = model.tsc_hz;
    partition_config.cpu_model = pv::pv_cpu_model(std::move(model));
    partition_config.options = config.engine_options;
    BH_ASSIGN(partition_, engine.create(partition_config, memory_));
    gang_ = std::make_unique<VcpuGang>(*partition_, vcpus_, ports_, mmio_);
    pv::Built built;
    {
      BH_ASSIGN(const GuestMemory physical, memory_.seen_from(Gpa{0}));
      BH_ASSIGN(built, pv::build({config.kernel_path, config.initrd_path, config.command_line}, physical, layout_));
    }
    description_ = built.description;
    tables_ = std::make_unique<pv::PageTables>(memory_, layout_);
    guest_ = std::make_unique<pv::Guest>(
        *partition_, *tables_, vcpus_,
        [this](xen::ShutdownReason reason, const std::string& crash) { gang_->finish(outcome_of(reason, crash)); });
    make_domain(config, tsc_hz, built.vm_assists);
    BH_TRY(connect(config, built));
    for (unsigned i = 0; i < config.disks.size(); ++i)
      if (config.disks[i] != nullptr) BH_TRY(disks_->add_at(i, *config.disks[i]));
    for (unsigned i = 0; i < config.networks.size(); ++i) {
      const NetDevice& network = config.networks[i];
      if (network.vhost_is_asked_for)
        return fail("vhost=on: the kernel's vhost-net knows no Xen rings; it is for -V pvh on the engine kvm");
      net_cores_.push_back(std::make_unique<device::NetCore>(*network.end, network.settings));
      BH_TRY(bus_->add(i, std::make_unique<xenbus::NetBackend>(*net_cores_[i], *grants_, *events_, i)));
    }
    for (unsigned i = 0; i < config.others.size(); ++i)
      BH_TRY(bus_->add(i + 1, std::make_unique<xenbus::XenConsoleBackend>(config.others[i], *grants_, *events_)));
    for (const PvConfig::Channel& channel : config.channels)
      channels_.push_back(std::make_unique<xenbus::Channel>(
          loop_, *zero_, *grants_, *events_, fmt::format("/local/domain/{}/{}", kDomain, channel.directory),
          channel.backend));
    return guest_->start(built.entry);
  }

  Outcome run() override { return gang_->run(); }
  void stop() override { gang_->finish({Outcome::Kind::kStopped, 0, {}}); }
  std::string kernel_description() const override { return description_; }

  Result<PluggedDisk> add_disk(block::Disk& disk) override { return disks_->add(disk); }
  Result<void> remove_disk(std::string_view name, DiskRemoval how, std::function<void(DiskRemoved)> done) override {
    return disks_->remove(name, how, std::move(done));
  }
  void set_disk_gone(std::function<void(block::Disk&)> gone) override { disks_->set_gone(std::move(gone)); }
  Result<Asked> request_shutdown(ShutdownRequest what) override { return control_->request(what); }
  std::vector<DeviceStatus> devices() override { return device_statuses(*bus_); }

  std::vector<ExitStatistics> exit_statistics() const override { return gang_->meter().statistics(); }
  std::vector<DiskStatistics> disk_statistics() const override { return disks_->statistics(); }

  std::vector<NetworkStatistics> network_statistics() const override {
    std::vector<NetworkStatistics> all;
    for (const auto& core : net_cores_) all.push_back({fmt::format("net{}", all.size()), device::statistics_of(*core)});
    return all;
  }

  std::vector<HypercallStatistics> hypercall_statistics() const override {
    return machine::hypercall_statistics(*domain_);
  }

  std::vector<std::pair<std::string, u64>> engine_counters() const override {
    telemetry::CounterSums sums;
    for (unsigned i = 0; i < vcpus_; ++i) sums.add(partition_->vcpu(i).counters());
    sums.add(guest_->counters());
    sums.add(tables_->counters());
    sums.add(store_.counters());
    sums.add(bus_->counters(), "xenbus_");
    sums.add(control_->counters());
    for (const auto& channel : channels_) sums.add(channel->counters(), "channel_");
    sums.add(domain_->counters());
    return sums.all();
  }

 private:
  std::span<std::byte> frames(u64 first, u64 count) {
    return {memory_.host(Gpa{first << kPageShift}, count << kPageShift), count << kPageShift};
  }

  void make_domain(const PvConfig& config, u64 tsc_hz, u64 vm_assists) {
    xen::DomainConfig domain;
    domain.kind = xen::GuestKind::kPv;
    domain.domid = kDomain;
    domain.uuid = uuid_;
    domain.vcpus = config.vcpus;
    domain.vm_assists = vm_assists;
    domain.tsc_hz = tsc_hz;
    domain.guest_tsc = [this] { return partition_->guest_tsc(); };
    if (device::ConsoleBackend* const console = config.hypervisor_console)
      domain.console = [console](std::string_view text) { console->write(std::as_bytes(std::span{text})); };
    domain.memory_map = {{0, config.memory_bytes}};
    xen::XenPages pages;
    pages.shared_info = frames(layout_.shared_info, 1).data();
    pages.grant_frames = frames(layout_.grant_frames, pv::Layout::kGrantFrames);
    pages.status_frames = frames(layout_.status_frames, pv::Layout::kStatusFrames);
    domain_ = std::make_unique<xen::Domain>(std::move(domain), pages, *guest_, *guest_, timers_);
    domain_->set_guest_calls(guest_.get());
    guest_->set_domain(*domain_);
  }

  // Console, xenstore, xenbus.
  Result<void> connect(const PvConfig& config, const pv::Built& built) {
    grants_ = std::make_unique<XenGrantPort>(*domain_);
    events_ = std::make_unique<XenEventPort>(*domain_);
    BH_ASSIGN(const u32 store_port, domain_->events().alloc_unbound_for_guest());
    BH_ASSIGN(const u32 console_port, domain_->events().alloc_unbound_for_guest());
    for (const u64 ring : {built.console_frame, built.store_frame})  // ours to write to, whatever the guest does
      if (tables_->hold(ring, xen::Hold::kWrite) == nullptr) return fail("the domain builder's ring pages are not RAM");
    domain_->grants().grant_for_guest(kConsoleGrant, built.console_frame);
    domain_->grants().grant_for_guest(kStoreGrant, built.store_frame);
    pv::set_ports(built, memory_, store_port, console_port);
    xenbus::store::DomainDescription description;
    description.domain = kDomain;
    description.name = config.name;
    description.uuid = uuid_text(uuid_);
    description.type = "pv";
    description.memory_kib = config.memory_bytes >> 10;
    description.vcpus = config.vcpus;
    description.kernel = config.kernel_path;
    description.ramdisk = config.initrd_path;
    description.command_line = config.command_line;
    description.store = {store_port, built.store_frame};
    description.console = {console_port, built.console_frame};
    BH_TRY(xenbus::store::setup_domain(store_, description));
    zero_ = std::make_unique<xenbus::store::DomainZero>(store_, kDomain);
    BH_ASSIGN(server_, xenbus::store::StoreServer::open(store_, kDomain, frames(built.store_frame, 1).data(), *events_,
                                                        store_port));
    console_ = std::make_unique<xenbus::PvConsole>(config.console);
    if (!console_->connect(frames(built.console_frame, 1).data(), *events_, console_port))
      return fail("the console's event channel cannot be bound");
    bus_ = std::make_unique<xenbus::BackendBus>(loop_, *zero_, kDomain);
    disks_ = std::make_unique<XenDisks>(*bus_, *grants_, *events_, vcpus_);
    control_ = std::make_unique<XenControl>(*zero_, kDomain);
    return {};
  }

  GuestMemory memory_;
  const pv::Layout layout_;
  const std::array<u8, 16> uuid_ = random_uuid();
  unsigned vcpus_ = 1;
  HostTimerService timers_;
  Bus ports_, mmio_;  // nothing is on them
  std::unique_ptr<engine::Partition> partition_;
  std::unique_ptr<VcpuGang> gang_;
  std::unique_ptr<pv::PageTables> tables_;
  std::unique_ptr<pv::Guest> guest_;
  std::unique_ptr<xen::Domain> domain_;
  std::unique_ptr<XenGrantPort> grants_;
  std::unique_ptr<XenEventPort> events_;
  xenbus::store::Store store_;
  std::unique_ptr<xenbus::store::DomainZero> zero_;
  std::unique_ptr<xenbus::store::StoreServer> server_;
  std::unique_ptr<xenbus::PvConsole> console_;
  std::unique_ptr<XenControl> control_;
  std::unique_ptr<XenDisks> disks_;  // the bus calls it
  std::vector<std::unique_ptr<device::NetCore>> net_cores_;
  xenbus::Loop loop_;
  std::unique_ptr<xenbus::BackendBus> bus_;
  std::vector<std::unique_ptr<xenbus::Channel>> channels_;
  std::string description_;
};

}  // namespace

Result<std::unique_ptr<Pv>> Pv::create(engine::Engine& engine, PvConfig config) {
  BH_TRY(check(config, engine));
  const pv::Layout layout = pv::Layout::of(config.memory_bytes >> kPageShift, pv::Layout::kUsualFirst);
  const u64 ours = layout.all_frames - layout.ram_frames;
  BH_ASSIGN(GuestMemory memory, GuestMemory::create({{Gpa{layout.first << kPageShift}, config.memory_bytes},
                                                     {Gpa{layout.ram_end() << kPageShift}, ours << kPageShift}}));
  auto machine = std::make_unique<PvMachine>(std::move(memory), layout);
  BH_TRY(machine->build(engine, config));
  return machine;
}

}  // namespace bulkhead::machine
