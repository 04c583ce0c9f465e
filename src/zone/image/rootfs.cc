#include "zone/image/rootfs.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <filesystem>

#include "base/fd.h"
#include "zone/image/debian.h"
#include "zone/image/fingerprint.h"
#include "zone/image/pack.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
constexpr unsigned kKept = 8;          // packed folders in the cache
constexpr u64 kWritableSpare = 4_GiB;  // free room of a new writable root; sparse on the host
constexpr u64 kReadOnlySpare = 1_MiB;

Result<RootDisk> pack_folder(const std::string& folder, Cache& cache, Workshop& workshop) {
  const bool erofs = !find_tool("mkfs.erofs").empty();
  workshop.progress.begin("packing " + folder);
  BH_ASSIGN(const std::string before, fingerprint(folder));
  const std::string name = before.substr(0, 40) + (::geteuid() == 0 ? "" : "-root") + (erofs ? ".erofs" : ".ext4");
  auto path = cache.get("rootfs", name, workshop, kKept, [&](const std::string& image) -> Result<void> {
    if (erofs) {
      BH_TRY(pack_erofs(folder, image, workshop));
    } else {
      BH_TRY(pack_ext4(folder, image, kReadOnlySpare, Journal::kNo, workshop));
    }
    BH_ASSIGN(const std::string after, fingerprint(folder));
    if (after != before) return fail("the folder {} changed while it was packed: try again", folder);
    return {};
  });
  workshop.progress.done();
  if (!path) return std::unexpected(std::move(path.error()));
  return RootDisk{std::move(*path), erofs ? RootFormat::kErofs : RootFormat::kExt4, RootAccess::kOverlay};
}

Result<RootDisk> resolve_source(const std::string& source, Cache& cache, Workshop& workshop) {
  if (source.empty()) {
    BH_ASSIGN(std::string path, debian_image(cache, workshop));
    return RootDisk{std::move(path), RootFormat::kErofs, RootAccess::kOverlay};
  }
  std::error_code error;
  const fs::file_status status = fs::status(source, error);
  if (!fs::exists(status)) return fail("there is no root file system {}: name a folder or a disk image", source);
  if (fs::is_directory(status)) return pack_folder(fs::absolute(source).lexically_normal().string(), cache, workshop);
  BH_ASSIGN(const RootFormat format, detect_root_format(source));
  return RootDisk{source, format, RootAccess::kOverlay};
}

Result<void> copy_image(const std::string& from, const std::string& to) {
  const UniqueFd in{::open(from.c_str(), O_RDONLY | O_CLOEXEC)};
  const UniqueFd out{::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
  if (!in || !out) return fail_errno("copying {} to {}", from, to);
  if (::ioctl(out.get(), FICLONE, in.get()) == 0) return {};
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (error) return fail("copying {} to {}: {}", from, to, error.message());
  return {};
}

// A folder, an ext4 image or an erofs image as a new ext4 image.
Result<void> make_writable(const std::string& source, const std::string& image, Cache& cache, Workshop& workshop) {
  std::error_code error;
  if (!source.empty() && fs::is_directory(source, error)) {
    workshop.progress.begin("making the writable root " + image);
    return pack_ext4(source, image, kWritableSpare, Journal::kYes, workshop);
  }
  BH_ASSIGN(const RootDisk disk, resolve_source(source, cache, workshop));
  workshop.progress.begin("making the writable root " + image);
  if (disk.format == RootFormat::kExt4) return copy_image(disk.path, image);
  const std::string folder = image + ".files";
  auto made = unpack_erofs(disk.path, folder, workshop);
  if (made) made = pack_ext4(folder, image, kWritableSpare, Journal::kYes, workshop);
  fs::remove_all(folder, error);
  return made;
}

Result<RootDisk> prepare_writable(const RootfsRequest& request, Cache& cache, Workshop& workshop) {
  std::error_code error;
  if (fs::is_directory(request.writable, error))
    return fail("--writable {} is a folder: name a disk image, which is made if it does not exist", request.writable);
  if (!fs::exists(request.writable, error)) {
    const std::string temporary = request.writable + ".making-" + std::to_string(::getpid());
    auto made = make_writable(request.source, temporary, cache, workshop);
    if (made) fs::rename(temporary, request.writable, error);
    workshop.progress.done();
    if (!made || error) {
      std::error_code ignored;
      fs::remove(temporary, ignored);
      if (!made) return std::unexpected(std::move(made.error()));
      return fail("making the writable root {}: {}", request.writable, error.message());
    }
  }
  if (::access(request.writable.c_str(), W_OK) != 0)
    return fail_errno("opening the writable root {}", request.writable);
  BH_ASSIGN(const RootFormat format, detect_root_format(request.writable));
  if (format != RootFormat::kExt4)
    return fail("--writable {} holds an erofs file system, which cannot be written to: name an ext4 image",
                request.writable);
  return RootDisk{request.writable, format, RootAccess::kWritable};
}

}  // namespace

Result<RootDisk> prepare_rootfs(const RootfsRequest& request, Cache& cache, Workshop& workshop) {
  if (request.pod) return RootDisk{{}, RootFormat::kErofs, RootAccess::kMemory};
  if (!request.writable.empty()) return prepare_writable(request, cache, workshop);
  return resolve_source(request.source, cache, workshop);
}

}  // namespace bulkhead::zone
