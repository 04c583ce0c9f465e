#include "zone/machine_parts.h"

#include "guest/agent/protocol.h"
#include "machine/pv/pv.h"
#include "net/open/privilege.h"

namespace bulkhead::zone {

Result<std::vector<net::Network>> open_networks(const MachineSpec& spec) {
  std::vector<net::Network> networks;
  bool privileged = false;
  for (const net::NetConfig& wanted : spec.networks) {
    if (wanted.kind == net::NetConfig::Kind::kNone) continue;
    BH_ASSIGN(net::Network network, net::open_network(wanted, spec.vcpus));
    privileged |= network.privileged;
    networks.push_back(std::move(network));
  }
  if (privileged) BH_TRY(net::drop_privilege());
  return networks;
}

Result<MachineParts> machine_parts(const MachineSpec& spec, const std::vector<DiskSpec>& first,
                                   std::vector<net::Network> networks) {
  MachineParts parts;
  parts.has_root = !first.empty();
  std::vector<DiskSpec> all = first;
  all.insert(all.end(), spec.disks.begin(), spec.disks.end());
  for (const DiskSpec& disk : all) {
    BH_ASSIGN(auto opened, block::open_disk(disk));
    parts.config.disks.push_back(opened.get());
    parts.disks.push_back(std::move(opened));
  }
  parts.files = std::move(all);
  parts.config.name = spec.name;
  parts.config.abi = spec.abi;
  parts.config.vcpus = spec.vcpus;
  parts.config.memory_bytes = spec.memory_bytes;
  parts.config.cpu_model = spec.cpu_model;
  parts.config.engine_options = spec.engine_options;
  for (const net::Network& network : networks) {
    const net::NetConfig& opened = network.config;
    parts.config.networks.push_back({.end = network.end.get(),
                                     .settings = {opened.mac, opened.mtu, opened.queues, opened.out, opened.in},
                                     .vhost = network.vhost.get(),
                                     .vhost_is_asked_for = opened.vhost == net::NetConfig::InKernel::kOn});
  }
  parts.networks = std::move(networks);
  return parts;
}

namespace {

std::string channel_directory(const std::string& port) {
  if (port == agent::kPortName) return agent::kXenDirectory;
  return port.starts_with("data/") ? port : "data/" + port;
}

Result<machine::PvConfig> pv_config(const machine::MicrovmConfig& config) {
  if (!config.modules.empty()) return fail("Multiboot modules are for -V pvh: a Xen PV kernel has no Multiboot header");
  if (config.debug_exit) return fail("--debug-exit is for -V pvh: the virt backend pv has no I/O ports");
  machine::PvConfig pv;
  static_cast<machine::MachineConfig&>(pv) = config;
  pv.hypervisor_console = config.debugcon;
  for (const auto& port : config.console_ports) {
    if (!port.is_console)
      pv.channels.push_back({channel_directory(port.name), port.backend});
    else if (pv.console == nullptr)
      pv.console = port.backend;
    else
      pv.others.push_back(port.backend);
  }
  return pv;
}

}  // namespace

Result<std::unique_ptr<machine::Machine>> make_machine(engine::Engine& engine, engine::VirtBackend backend,
                                                       const machine::MicrovmConfig& config) {
  if (backend == engine::VirtBackend::kPv) {
    BH_ASSIGN(machine::PvConfig pv, pv_config(config));
    return machine::Pv::create(engine, std::move(pv));
  }
  return machine::Microvm::create(engine, config);
}

Result<void> networks_ready(MachineParts& parts) {
  bool privileged = false;
  for (net::Network& network : parts.networks) {
    BH_TRY(net::wait_until_ready(network));
    privileged |= network.privileged;
  }
  if (privileged) net::forbid_privilege();
  return {};
}

void describe_machine(const MachineSpec& spec, const std::string& kernel_path, Report& report) {
  report.name = spec.name;
  report.kernel_path = kernel_path;
  report.cpu_model = spec.cpu_model;
  report.vcpus = spec.vcpus;
  report.memory_bytes = spec.memory_bytes;
}

}  // namespace bulkhead::zone
