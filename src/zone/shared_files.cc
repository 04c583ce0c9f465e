#include "zone/shared_files.h"

#include <algorithm>

#include "guest/agent/volumes.h"

namespace bulkhead::zone {

Result<std::unique_ptr<SharedFiles>> SharedFiles::open(const std::vector<fs::ShareSpec>& shares,
                                                       engine::VirtBackend backend, machine::MicrovmConfig& config) {
  if (shares.empty()) return nullptr;
  auto files = std::make_unique<SharedFiles>();
  fs::FileServerConfig wanted;
  wanted.shares = shares;
  wanted.lanes = std::clamp(2 * config.vcpus, 2u, 8u);
  BH_ASSIGN(files->server_, fs::FileServer::start(wanted));
  files->core_ = std::make_unique<device::FsCore>(files->server_->take_lanes());
  if (backend == engine::VirtBackend::kPv) {
    files->channel_ = std::make_unique<device::FsByteChannel>(*files->core_);
    config.console_ports.push_back({agent::kXenFilesDirectory, files->channel_.get(), false});
  } else {
    config.files = files->core_.get();
    config.files_tag = agent::kFilesTag;
  }
  return files;
}

std::string_view SharedFiles::command_line(engine::VirtBackend backend) {
  return backend == engine::VirtBackend::kPv ? "channel" : "virtiofs";
}

}  // namespace bulkhead::zone
