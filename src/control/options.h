// The command line, read. Pure: looks at no file and prints nothing.
#pragma once
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/choose.h"
#include "zone/kernel/kernel_store.h"
#include "zone/live/request.h"
#include "zone/oci/image.h"
#include "zone/zone_spec.h"

namespace bulkhead::control {

// What every command that starts a zone has besides its spec.
struct Common {
  engine::EngineRequest request;
  machine::Abi abi = machine::Abi::kXen;
  bool json = false;        // the report as one line on stderr (run, boot), or JSON on stdout (host, kernel)
  std::string report_path;  // empty: none
};

struct RunCommand {
  Common common;
  zone::CommandChanges changes;  // where the root file system is an image
  zone::ZoneSpec spec;
};
struct BootCommand {
  Common common;
  zone::BootSpec spec;
};
struct HostCommand {
  bool json = false;
};
// `bulkhead host check|install`: a host whose containerd runs pods in zones.
struct NodeCommand {
  enum class Verb : u8 { kCheck, kInstall };
  Verb verb = Verb::kCheck;
  std::string prefix = "/usr/local", containerd_config = "/etc/containerd/config.toml";
};
struct KernelFetchCommand {
  zone::FetchRequest request;
  bool json = false;
};
struct KernelListCommand {
  bool json = false;
};
struct ZoneListCommand {
  bool json = false;
};
// Something asked of a zone that runs. Files of disks and jobs may still be relative paths.
struct ZoneAskCommand {
  std::string name;
  zone::Request request;
  bool wait = false;  // for a job
  bool json = false;  // of a list
};
// `bulkhead disk`, not judged yet: its own parser does that (command_disk.cc).
struct DiskCommand {
  std::vector<std::string> arguments;
};
// `bulkhead net`: bridges with NAT.
struct NetCommand {
  enum class Verb : u8 { kList, kCreate, kRemove };
  Verb verb = Verb::kList;
  std::string name, subnet = "10.88.0.1/24";
};
// `bulkhead image`: images in the cache.
struct ImageVerbCommand {
  enum class Verb : u8 { kList, kLoad, kInspect, kRemove };
  Verb verb = Verb::kList;
  std::string image;
  bool json = false;
};
struct HelpCommand {
  std::string text;
};
using Command =
    std::variant<RunCommand, BootCommand, HostCommand, KernelFetchCommand, KernelListCommand, ZoneListCommand,
                 ZoneAskCommand, DiskCommand, NetCommand, ImageVerbCommand, NodeCommand, HelpCommand>;

// `arguments` without the program's name. Errors: one line that names the argument.
Result<Command> parse_command_line(const std::vector<std::string>& arguments);

// "512" (MiB), "512M", "1G", "2GiB", "65536K" as bytes.
Result<u64> parse_memory(const std::string& text);

}  // namespace bulkhead::control
