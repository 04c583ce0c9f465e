// What is asked for: a zone that runs a command, or a bare kernel.
#pragma once
#include <string>
#include <vector>

#include "base/ints.h"
#include "block/disk/open_disk.h"
#include "engine/choose.h"
#include "fs/process/file_server.h"
#include "machine/machine.h"
#include "net/open/net_config.h"
#include "zone/image/rootfs.h"

namespace bulkhead::zone {

using DiskSpec = block::DiskConfig;

// The parts that `run` and `boot` share.
struct MachineSpec {
  std::string name = "zone";  // of the zone; its host name under `run`
  bool named = false;         // the name was asked for, so no other zone that runs may have it
  unsigned vcpus = 1;
  u64 memory_bytes = 512_MiB;
  machine::Abi abi = machine::Abi::kXen;
  std::string cpu_model = "host";
  engine::VirtBackend backend = engine::VirtBackend::kPvh;  // as chosen: kPv or kPvh
  std::string kernel;  // `run`: a file, a stored kernel, or empty for the default; `boot`: a file or a stored kernel
  std::string initrd;  // `run`: empty for our own
  std::string append;  // added to our kernel command line; under `boot` it is the whole of it
  static constexpr unsigned kMaxNetworks = 8;
  std::vector<net::NetConfig> networks;
  bool networks_given = false;  // otherwise `run` has a user network, where it can
  std::vector<DiskSpec> disks;  // behind the root disk, if there is one
  std::vector<std::pair<std::string, std::string>> engine_options;
  // What the zone may use of the host's files (`run`). Each is there at /run/bulkhead/files/NAME before the command.
  std::vector<fs::ShareSpec> shares;
};

// A folder or file of the host's, somewhere in the zone.
struct VolumeSpec {
  std::string host, guest;  // guest: an absolute path, made if it is not there
  bool read_only = false;
};

struct ZoneSpec {
  MachineSpec machine;
  RootfsRequest rootfs;
  std::vector<std::string> command;      // at least one
  std::vector<std::string> environment;  // "NAME=value", on top of the default
  std::string directory = "/";
  std::string user;  // "uid gid groups..."; empty: root
  std::vector<VolumeSpec> volumes;
  bool terminal = false;
  unsigned boot_timeout_s = 60;
};

struct BootSpec {
  MachineSpec machine;
  std::vector<std::string> modules;  // Multiboot modules
  bool debugcon = false, debug_exit = false;
  bool reboot = true;  // a reset starts over instead of ending
};

}  // namespace bulkhead::zone
