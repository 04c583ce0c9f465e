#include "zone/image/pack.h"

#include <unistd.h>

#include "base/bits.h"
#include "zone/image/fingerprint.h"

namespace bulkhead::zone {

Result<void> pack_erofs(const std::string& folder, const std::string& image, Workshop& workshop) {
  Tool tool{.command = {"mkfs.erofs", "--quiet"}, .package = "erofs-utils"};
  if (::geteuid() != 0) tool.command.push_back("--all-root");
  tool.command.insert(tool.command.end(), {"--", image, folder});
  BH_TRY(run_tool(tool, workshop));
  return {};
}

Result<void> pack_ext4(const std::string& folder, const std::string& image, u64 spare, Journal journal,
                       Workshop& workshop) {
  BH_ASSIGN(const FolderSize size, measure(folder));
  const u64 inodes = size.files + size.files / 4 + 4096 + spare / 16_KiB;
  const u64 bytes = align_up(size.bytes + size.bytes / 8 + inodes * 512 + spare + 32_MiB, 1_MiB);
  Tool tool{.command = {"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-N", std::to_string(inodes), "-d", folder},
            .package = "e2fsprogs"};
  if (journal == Journal::kNo) tool.command.insert(tool.command.end(), {"-O", "^has_journal"});
  if (::geteuid() != 0) tool.command.insert(tool.command.end(), {"-E", "root_owner=0:0"});
  tool.command.insert(tool.command.end(), {image, std::to_string(bytes / 1_KiB) + "k"});
  BH_TRY(run_tool(tool, workshop));
  return {};
}

Result<void> unpack_erofs(const std::string& image, const std::string& folder, Workshop& workshop) {
  BH_TRY(run_tool({.command = {"fsck.erofs", "--extract=" + folder, image}, .package = "erofs-utils"}, workshop));
  return {};
}

}  // namespace bulkhead::zone
