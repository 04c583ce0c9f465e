// What `run` and `boot` both do to put a machine together.
#pragma once
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "block/disk/open_disk.h"
#include "block/job/disk_jobs.h"
#include "machine/microvm/microvm.h"
#include "net/open/net_config.h"
#include "zone/report.h"
#include "zone/shared_files.h"
#include "zone/zone_spec.h"

namespace bulkhead::zone {

// Open disks and networks, and the machine's configuration that points at them: of the machine `microvm`, and what the
// machine `pv` has of it.
struct MachineParts {
  std::vector<std::unique_ptr<block::Disk>> disks;
  std::map<block::Disk*, std::unique_ptr<block::DiskJobs>> jobs;  // of those that had some; end before the disks
  std::vector<net::Network> networks;
  std::vector<DiskSpec> files;                // what config.disks are, one by one
  bool has_root = false;                      // the first disk is the zone's root
  std::unique_ptr<SharedFiles> shared_files;  // null: none
  machine::MicrovmConfig config;
};

// Everything of `spec` but the kernel, initrd, command line and consoles. `first` (if not empty) comes before the
// spec's own disks. Errors: a disk or a network that cannot be opened.
Result<MachineParts> machine_parts(const MachineSpec& spec, const std::vector<DiskSpec>& first,
                                   std::vector<net::Network> networks);

// What `spec` asks for, open; its privilege is given up afterwards, so do it before there are other threads.
// Errors: a network that is not to be had.
Result<std::vector<net::Network>> open_networks(const MachineSpec& spec);

// Waits until its networks serve. Errors: one cannot. Nothing that needs privilege comes behind it.
Result<void> networks_ready(MachineParts& parts);

// The machine of the virt backend. Errors: what the configuration asks for is not to be had there.
Result<std::unique_ptr<machine::Machine>> make_machine(engine::Engine& engine, engine::VirtBackend backend,
                                                       const machine::MicrovmConfig& config);

void describe_machine(const MachineSpec& spec, const std::string& kernel_path, Report& report);

}  // namespace bulkhead::zone
