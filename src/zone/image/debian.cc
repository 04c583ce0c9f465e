#include "zone/image/debian.h"

#include <filesystem>
#include <fstream>

#include "zone/image/apt_sources.h"
#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
constexpr unsigned kKept = 2;

// Runs inside mmdebstrap's namespace, where owners are as they should be even without root. The bind mount shows the
// tree without the host's /proc, /sys and /dev that are mounted in it at that moment.
constexpr std::string_view kPackHook =
    "rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*.bin \"$1\"/var/cache/apt/archives/*.deb "
    "\"$1\"/etc/resolv.conf && echo bulkhead > \"$1\"/etc/hostname && "
    "unshare -m sh -ec 'mount --bind \"$1\" \"$1/mnt\"; "
    "mkfs.erofs --quiet --exclude-path=.bulkhead.erofs \"$1/.bulkhead.erofs\" \"$1/mnt\"' sh \"$1\"";

struct TemporaryFolder {
  explicit TemporaryFolder(std::string at) : path{std::move(at)} { fs::create_directory(path, ignored); }
  ~TemporaryFolder() { fs::remove_all(path, ignored); }
  std::string path;
  std::error_code ignored;
};

std::string key_of(const AptSources& sources) {
  Sha256 sha;
  sha.add_text(kPackHook);
  sha.add_text(sources.deb822);
  sha.add_text(sources.one_line);
  return fmt::format("{}-minbase-{}.erofs", sources.codename, sha.hex().substr(0, 24));
}

Result<void> make(const AptSources& sources, const std::string& image, Workshop& workshop) {
  const TemporaryFolder folder{image + ".sources"};
  Tool tool{.command = {"mmdebstrap", "--quiet", "--variant=minbase", "--format=null",
                        "--customize-hook=" + std::string{kPackHook},
                        "--customize-hook=download /.bulkhead.erofs '" + image + "'", sources.codename, "-"},
            .package = "mmdebstrap",
            .environment = {{"DEBIAN_FRONTEND", "noninteractive"}}};
  const auto add = [&](const std::string& name, const std::string& content) {
    if (content.empty()) return;
    std::ofstream{folder.path + "/" + name} << content;
    tool.command.push_back(folder.path + "/" + name);
  };
  add("host.sources", sources.deb822);
  add("host.list", sources.one_line);
  if (find_tool("mkfs.erofs").empty())
    return fail("mkfs.erofs is not installed on this host: install the package erofs-utils");
  if (auto made = run_tool(tool, workshop); !made)
    return fail("making the default Debian root file system: {} (or name a ROOTFS of your own)", made.error().message);
  return {};
}

}  // namespace

Result<std::string> debian_image(Cache& cache, Workshop& workshop) {
  const AptSources sources = read_apt_sources();
  workshop.progress.begin("making the default Debian root file system, once");
  auto path = cache.get("debian", key_of(sources), workshop, kKept,
                        [&](const std::string& image) { return make(sources, image, workshop); });
  workshop.progress.done();
  return path;
}

}  // namespace bulkhead::zone
