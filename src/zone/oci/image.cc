#include "zone/oci/image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>

#include "base/log.h"
#include "zone/image/pack.h"
#include "zone/oci/jailed.h"
#include "zone/oci/layer.h"
#include "zone/oci/source.h"
#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kKind = "images";
constexpr std::size_t kMaxList = 1_MiB;  // of /etc/passwd and /etc/group

Result<std::string> hash_of(const std::string& path, u64& size) {
  const UniqueFd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) return fail_errno("opening {}", path);
  Sha256 sha;
  std::vector<std::byte> block(1_MiB);
  size = 0;
  while (true) {
    const ssize_t got = ::read(file.get(), block.data(), block.size());
    if (got < 0) return fail_errno("reading {}", path);
    if (got == 0) return sha.hex();
    sha.add(std::span{block}.first(static_cast<std::size_t>(got)));
    size += static_cast<u64>(got);
  }
}

Result<void> write_text(const std::string& path, const std::string& text) {
  std::ofstream out{path, std::ios::binary};
  out << text;
  out.close();
  if (!out) return fail("writing {}: is the disk full?", path);
  return {};
}

std::string read_text(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

// Every layer onto those below it, in `folder`.
Result<void> unpack(const FoundImage& image, ImageSource& source, const std::string& folder, const std::string& scratch,
                    Workshop& workshop) {
  std::vector<std::string> names;
  for (const FoundImage::Layer& layer : image.layers) names.push_back(layer.name);
  BH_ASSIGN(const std::vector<std::string> files, source.files(names, scratch));
  BH_ASSIGN(Tree tree, Tree::open(folder));
  UnpackCounts counts;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const FoundImage::Layer& layer = image.layers[i];
    if (layer.blob) {
      u64 size = 0;
      BH_ASSIGN(const std::string hash, hash_of(files[i], size));
      if (size != layer.size || hash != layer.blob->hex)
        return fail("the image's {} is not what its digest says", layer.name);
    }
    BH_TRY(apply_layer(files[i], image.config.layers[i], tree, UnpackLimits{}, counts, workshop));
  }
  const std::string& directory = image.config.directory;
  if (!directory.empty()) BH_TRY(tree.ensure_folder(directory));
  BH_TRY(write_text(scratch + "/../passwd", tree.read("etc/passwd", kMaxList)));
  BH_TRY(write_text(scratch + "/../group", tree.read("etc/group", kMaxList)));
  if (counts.devices > 0)
    log_warning("the image has {} device nodes, which were left out: zones have their own /dev", counts.devices);
  return {};
}

// Where an image comes from, and what of the host must be seen to read it.
struct Origin {
  std::function<Result<std::unique_ptr<ImageSource>>()> open;  // in a jail
  std::vector<bulkhead::fs::JailedPath> files;
};

Result<void> make_entry(const FoundImage& image, const Origin& origin, const std::string& entry, Workshop& workshop) {
  const std::string folder = entry + "/files", scratch = entry + "/layers";
  std::error_code error;
  for (const std::string& made : {entry, folder, scratch})
    if (!fs::create_directory(made, error)) return fail("making {}: {}", made, error.message());
  ::chmod(folder.c_str(), 0755);  // the root's mode, if no layer says
  std::vector<bulkhead::fs::JailedPath> files = origin.files;
  files.push_back({entry, entry});
  const auto work = [&](Workshop& inside) -> Result<std::string> {
    BH_ASSIGN(const auto source, origin.open());
    BH_TRY(unpack(image, *source, folder, scratch, inside));
    return "";
  };
  BH_TRY(in_jail(files, workshop, work));
  if (!find_tool("mkfs.erofs").empty())
    BH_TRY(pack_erofs(folder, entry + "/root.erofs", workshop));
  else
    BH_TRY(pack_ext4(folder, entry + "/root.ext4", 1_MiB, Journal::kNo, workshop));
  BH_TRY(write_text(entry + "/config.json", image.config_text));
  fs::remove_all(folder, error);
  fs::remove_all(scratch, error);
  return {};
}

Result<StoredImage> read_entry(const std::string& entry) {
  StoredImage out;
  BH_ASSIGN(out.id, parse_digest("sha256:" + fs::path{entry}.filename().string().substr(0, 64)));
  for (const char* const name : {"/root.erofs", "/root.ext4"})
    if (std::error_code error; fs::exists(entry + name, error)) {
      out.rootfs = entry + name;
      out.bytes = fs::file_size(out.rootfs, error);
    }
  out.config_text = read_text(entry + "/config.json");
  out.passwd = read_text(entry + "/passwd");
  out.group = read_text(entry + "/group");
  out.name = read_text(entry + "/name");
  BH_ASSIGN(out.config, parse_config(out.config_text));
  if (out.rootfs.empty()) return fail("the image {} in the cache is not whole: remove it", entry);
  return out;
}

// containerd's own tool writes an archive; its own variables say where containerd is (CONTAINERD_ADDRESS,
// CONTAINERD_NAMESPACE).
Result<void> export_from_containerd(const std::string& name, const std::string& archive, Workshop& workshop) {
  workshop.progress.begin("exporting " + name + " from containerd");
  auto done = run_tool(
      {.command = {"ctr", "images", "export", "--platform", "linux/amd64", archive, name}, .package = "containerd"},
      workshop);
  workshop.progress.done();
  if (!done) return std::unexpected(std::move(done.error()));
  return {};
}

Result<StoredImage> load_from(const Origin& origin, const ImageReference& reference, Cache& cache, Workshop& workshop) {
  const std::string wanted = reference.kind == ImageReference::Kind::kContainerd ? std::string{} : reference.name;
  const auto find = [&](Workshop&) -> Result<std::string> {
    BH_ASSIGN(const auto source, origin.open());
    BH_ASSIGN(const FoundImage found, find_image(*source, wanted));
    return text_of(found);
  };
  BH_ASSIGN(const std::string text, in_jail(origin.files, workshop, find));
  BH_ASSIGN(const FoundImage image, image_of(text));
  // Without root every file is ours, and so root's in the zone: another image than root's.
  const std::string name = image.id.hex + (::geteuid() == 0 ? "" : "-root");
  workshop.progress.begin("unpacking the image " + reference.text);
  auto entry = cache.get(kKind, name, workshop, 0,
                         [&](const std::string& temporary) { return make_entry(image, origin, temporary, workshop); });
  workshop.progress.done();
  if (!entry) return std::unexpected(std::move(entry.error()));
  (void)write_text(*entry + "/name", reference.text);  // the last name that it was used by
  return read_entry(*entry);
}

using Open = Result<std::unique_ptr<ImageSource>>(const std::string&);

Result<StoredImage> load_path(Open& open, const std::string& path, const ImageReference& reference, Cache& cache,
                              Workshop& workshop) {
  std::error_code error;
  const std::string absolute = fs::absolute(path, error).string();
  if (!fs::exists(absolute, error))
    return error ? fail("cannot look for the image {}: {}", path, error.message()) : fail("there is no image {}", path);
  return load_from({[&] { return open(absolute); }, {{absolute, absolute, true}}}, reference, cache, workshop);
}

}  // namespace

Result<StoredImage> load_image(const ImageReference& reference, Cache& cache, Workshop& workshop) {
  using Kind = ImageReference::Kind;
  if (reference.kind == Kind::kLayout) return load_path(open_layout, reference.path, reference, cache, workshop);
  if (reference.kind == Kind::kArchive) return load_path(open_archive, reference.path, reference, cache, workshop);
  std::string archive = cache.root() + "/export-XXXXXX";
  const UniqueFd file{::mkstemp(archive.data())};
  if (!file) return fail_errno("making {}", archive);
  auto done = [&]() -> Result<StoredImage> {
    BH_TRY(export_from_containerd(reference.name, archive, workshop));
    return load_path(open_archive, archive, reference, cache, workshop);
  }();
  ::unlink(archive.c_str());
  return done;
}

std::vector<StoredImage> list_images(const Cache& cache) {
  std::vector<StoredImage> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator{cache.folder(kKind), error})
    if (auto image = read_entry(entry.path().string())) out.push_back(std::move(*image));
  std::ranges::sort(out, {}, [](const StoredImage& one) { return one.name + one.id.hex; });
  return out;
}

Result<StoredImage> find_stored(const Cache& cache, const std::string& what) {
  std::vector<StoredImage> left = list_images(cache);
  const std::string hex = what.starts_with("sha256:") ? what.substr(7) : what;
  std::erase_if(left, [&](const StoredImage& one) {
    return one.name != what && (hex.size() < 4 || !one.id.hex.starts_with(hex));
  });
  if (left.empty()) return fail("there is no image {} in the cache (see `bulkhead image list`)", what);
  if (left.size() > 1) return fail("several images in the cache begin with {}: write more of the digest", what);
  return std::move(left[0]);
}

Result<void> remove_image(const Cache& cache, const StoredImage& image) {
  std::error_code error;
  const std::string entry = fs::path{image.rootfs}.parent_path().string();
  if (!entry.starts_with(cache.folder(kKind) + "/")) return fail("{} is not in the cache", entry);
  // Aside first: a name in the cache means that all is there.
  const std::string aside = fmt::format("{}/.making-removed-{}", cache.folder(kKind), ::getpid());
  fs::rename(entry, aside, error);
  if (error) return fail("removing {}: {}", entry, error.message());
  fs::remove_all(aside, error);
  return {};
}

Result<ImageCommand> command_of(const StoredImage& image, const CommandChanges& changes) {
  ImageCommand out;
  const ImageConfig& config = image.config;
  if (!changes.own_entrypoint) out.command = config.entrypoint;
  if (changes.own_entrypoint && !changes.entrypoint.empty()) out.command = {changes.entrypoint};
  const bool own_arguments = !changes.arguments.empty() || changes.own_entrypoint;
  const std::vector<std::string>& arguments = own_arguments ? changes.arguments : config.command;
  out.command.insert(out.command.end(), arguments.begin(), arguments.end());
  if (out.command.empty()) return fail("the image says nothing of what to run: put a command behind --");
  out.environment = config.environment;
  out.environment.insert(out.environment.end(), changes.environment.begin(), changes.environment.end());
  out.directory = !changes.directory.empty() ? changes.directory : config.directory.empty() ? "/" : config.directory;
  if (!out.directory.starts_with('/')) out.directory.insert(0, "/");
  BH_ASSIGN(out.user, resolve_user(changes.user.empty() ? config.user : changes.user, image.passwd, image.group));
  const bool has_home = std::ranges::any_of(out.environment, [](const auto& one) { return one.starts_with("HOME="); });
  if (!has_home) out.environment.insert(out.environment.begin(), "HOME=" + out.user.home);
  return out;
}

}  // namespace bulkhead::zone
