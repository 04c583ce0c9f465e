#include "zone/machine_parts.h"

namespace bulkhead::zone {

Result<MachineParts> machine_parts(const MachineSpec& spec, const std::vector<DiskSpec>& first) {
  MachineParts parts;
  std::vector<DiskSpec> all = first;
  all.insert(all.end(), spec.disks.begin(), spec.disks.end());
  for (const DiskSpec& disk : all) {
    const auto access = disk.read_only ? block::DiskAccess::kReadOnly : block::DiskAccess::kReadWrite;
    BH_ASSIGN(auto opened, block::RawDisk::open(disk.path, access));
    parts.config.disks.push_back(opened.get());
    parts.disks.push_back(std::move(opened));
  }
  parts.config.vcpus = spec.vcpus;
  parts.config.memory_bytes = spec.memory_bytes;
  parts.config.cpu_model = spec.cpu_model;
  parts.config.engine_options = spec.engine_options;
  return parts;
}

void describe_machine(const MachineSpec& spec, const std::string& kernel_path, Report& report) {
  report.name = spec.name;
  report.kernel_path = kernel_path;
  report.cpu_model = spec.cpu_model;
  report.vcpus = spec.vcpus;
  report.memory_bytes = spec.memory_bytes;
}

}  // namespace bulkhead::zone
