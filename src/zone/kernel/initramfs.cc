#include "zone/kernel/initramfs.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "zone/kernel/agent_image.h"
#include "zone/kernel/cpio.h"
#include "zone/kernel/module_set.h"
#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

constexpr unsigned kKept = 16;  // archives in the cache
constexpr std::string_view kLayout = "initramfs layout 3";

std::vector<WantedModule> modules_for(const InitramfsWants& wants) {
  const auto& [backend, format, access, files] = wants;
  std::vector<WantedModule> wanted = {
      {"virtio_mmio"}, {"virtio_console"}, {"virtio_blk"}, {"virtio_rng", false}, {"virtio_net", false}};
  // The first look of xen_blkfront at its disks finds them not connected yet, and the next is 100 ms later.
  if (backend == engine::VirtBackend::kPv)
    wanted = {{.name = "xen_blkfront", .waits = true},
              {"xen_evtchn"},
              {"xen_gntalloc"},
              {.name = "xen_netfront", .required = false, .waits = true}};
  if (access != RootAccess::kMemory) wanted.push_back({std::string{format_name(format)}});
  if (access == RootAccess::kOverlay) wanted.push_back({"overlay"});
  if (files) wanted.push_back({backend == engine::VirtBackend::kPv ? "fuse" : "virtiofs"});
  return wanted;
}

// All that goes into the archive, without reading every module: the package's own lists change with its modules.
std::string key_of(const KernelImage& kernel, RootAccess access, const std::vector<WantedModule>& wanted) {
  Sha256 sha;
  sha.add_text(kLayout);
  sha.add(agent_image());
  if (access == RootAccess::kMemory) sha.add(pod_agent_image());
  sha.add_text(kernel.release);
  sha.add_text(kernel.modules_folder);
  for (const char* const file : {"/modules.order", "/modules.builtin", "/kernel"}) {
    struct stat status{};
    ::stat((kernel.modules_folder + file).c_str(), &status);
    for (const u64 value : {static_cast<u64>(status.st_ino), static_cast<u64>(status.st_size),
                            static_cast<u64>(status.st_ctim.tv_sec), static_cast<u64>(status.st_ctim.tv_nsec)})
      sha.add_number(value);
  }
  for (const WantedModule& module : wanted) sha.add_text(module.name);
  return sha.hex().substr(0, 40) + ".cpio";
}

Result<void> write_archive(const KernelImage& kernel, RootAccess access, const std::vector<WantedModule>& wanted,
                           const std::string& path) {
  std::vector<LoadableModule> modules;
  if (!kernel.modules_folder.empty()) {
    BH_ASSIGN(modules, resolve_modules(kernel.modules_folder, wanted));
  }
  CpioWriter archive;
  archive.add_folder("dev");
  archive.add_character_device("dev/console", 0600, 5, 1);  // the kernel opens it before /init can mount anything
  archive.add_file("init", 0755, agent_image());
  if (access == RootAccess::kMemory) archive.add_file("bulkhead/pod-agent", 0755, pod_agent_image());
  std::string list;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const std::string file = fmt::format("bulkhead/{:02}-{}.ko", i, modules[i].name);
    archive.add_file(file, 0644, std::as_bytes(std::span{modules[i].content}));
    const bool waits = std::ranges::any_of(
        wanted, [&](const WantedModule& module) { return module.waits && module.name == modules[i].name; });
    list += (waits ? "&/" : "/") + file + "\n";
  }
  archive.add_file("bulkhead/modules", 0644, std::as_bytes(std::span{list}));
  std::ofstream out{path, std::ios::binary};
  out << archive.finish();
  out.close();
  if (!out) return fail("writing the initramfs {}: is the disk full?", path);
  return {};
}

}  // namespace

Result<std::string> initramfs_for(const KernelImage& kernel, const InitramfsWants& wants, Cache& cache,
                                  Workshop& workshop) {
  const std::vector<WantedModule> wanted = modules_for(wants);
  return cache.get("initramfs", key_of(kernel, wants.access, wanted), workshop, kKept,
                   [&](const std::string& path) { return write_archive(kernel, wants.access, wanted, path); });
}

}  // namespace bulkhead::zone
