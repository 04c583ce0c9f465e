// The host's files in a zone: its file server, and the way of the machine's kind to it.
#pragma once
#include <memory>

#include "device/core/fs/byte_channel.h"
#include "device/core/fs/fs_core.h"
#include "device/core/fs/fs_statistics.h"
#include "engine/choose.h"
#include "fs/process/file_server.h"
#include "machine/microvm/microvm.h"

namespace bulkhead::zone {

class SharedFiles {
 public:
  // Starts the server and joins it to `config`: a virtio-fs device, or a channel for virt backend pv. Null where
  // `shares` is empty. What it returns outlives the machine. Nothing that needs privilege comes behind
  // networks_ready(), so do it before. Errors: a share that is not there.
  static Result<std::unique_ptr<SharedFiles>> open(const std::vector<fs::ShareSpec>& shares,
                                                   engine::VirtBackend backend, machine::MicrovmConfig& config);
  // What the kernel command line says of it.
  static std::string_view command_line(engine::VirtBackend backend);
  device::FsStatistics statistics() const { return device::statistics_of(*core_, server_->counts()); }

 private:
  std::unique_ptr<fs::FileServer> server_;
  std::unique_ptr<device::FsCore> core_;
  std::unique_ptr<device::FsByteChannel> channel_;
};

}  // namespace bulkhead::zone
