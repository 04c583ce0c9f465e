#include "zone/oci/source.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "zone/oci/archive_reader.h"
#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;

class Layout final : public ImageSource {
 public:
  Layout(std::string path, UniqueFd folder) : path_{std::move(path)}, folder_{std::move(folder)} {}

  Result<std::optional<std::string>> document(const std::string& name) override {
    const UniqueFd file{open_below(name)};
    if (!file) return std::nullopt;
    struct stat status{};
    if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode))
      return fail("{}/{} is not a regular file", path_, name);
    if (static_cast<u64>(status.st_size) > kMaxDocument) return fail("{}/{} is too long", path_, name);
    std::string out(static_cast<std::size_t>(status.st_size), '\0');
    const ssize_t got = ::pread(file.get(), out.data(), out.size(), 0);
    if (got < 0) return fail_errno("reading {}/{}", path_, name);
    out.resize(static_cast<std::size_t>(got));
    return out;
  }

  Result<std::vector<std::string>> files(const std::vector<std::string>& names, const std::string&) override {
    std::vector<std::string> out;
    for (const std::string& name : names) {
      UniqueFd file{open_below(name)};
      struct stat status{};
      if (!file) return fail_errno("opening {}/{}", path_, name);
      if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode))
        return fail("{}/{} is not a regular file", path_, name);
      out.push_back(fmt::format("/proc/self/fd/{}", file.get()));
      open_.push_back(std::move(file));
    }
    return out;
  }

 private:
  int open_below(const std::string& name) const {
    open_how how{};
    how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    return static_cast<int>(::syscall(SYS_openat2, folder_.get(), name.c_str(), &how, sizeof how));
  }
  const std::string path_;
  const UniqueFd folder_;
  std::vector<UniqueFd> open_;
};

// Two passes: documents, and where links lead, when it is opened; the layers when they are wanted.
class Archive final : public ImageSource {
 public:
  static constexpr std::size_t kMaxEntries = 100'000;
  static constexpr u64 kMaxDocuments = 64_MiB, kMaxBlobs = 64_GiB;
  explicit Archive(std::string path) : path_{std::move(path)} {}

  Result<void> read_documents() {
    BH_ASSIGN(const ArchivePtr tar, open_tar(path_));
    archive_entry* entry = nullptr;
    std::size_t entries = 0;
    u64 all = 0;
    for (int status; (status = archive_read_next_header(tar.get(), &entry)) != ARCHIVE_EOF;) {
      if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
        return fail("reading {}: {}", path_, archive_error(tar.get()));
      if (++entries > kMaxEntries) return fail("{} has more than {} files", path_, kMaxEntries);
      const std::string name = name_of(entry);
      if (const char* const target = archive_entry_symlink(entry))
        links_[name] = (fs::path{name}.parent_path() / target).lexically_normal().string();
      if (const char* const target = archive_entry_hardlink(entry)) links_[name] = normal_name(target);
      const auto size = static_cast<u64>(archive_entry_size(entry));
      if (archive_entry_filetype(entry) != AE_IFREG || size == 0 || size > kMaxDocument) continue;
      std::string text(4, '\0');
      const la_ssize_t got = archive_read_data(tar.get(), text.data(), text.size());
      if (got <= 0 || (text[0] != '{' && text[0] != '[')) continue;  // not a document
      text.resize(size);
      const la_ssize_t more = archive_read_data(tar.get(), text.data() + got, size - static_cast<u64>(got));
      if (more < 0) return fail("reading {}: {}", path_, archive_error(tar.get()));
      text.resize(static_cast<std::size_t>(got + more));
      if ((all += size) > kMaxDocuments) return fail("{} has too many documents", path_);
      documents_[name] = std::move(text);
    }
    return {};
  }

  Result<std::optional<std::string>> document(const std::string& name) override {
    const auto found = documents_.find(real(name));
    if (found == documents_.end()) return std::nullopt;
    return found->second;
  }

  Result<std::vector<std::string>> files(const std::vector<std::string>& names, const std::string& scratch) override {
    std::map<std::string, std::string> wanted;  // where each is to be
    for (const std::string& name : names) wanted.emplace(real(name), fmt::format("{}/{}", scratch, wanted.size()));
    BH_ASSIGN(const ArchivePtr tar, open_tar(path_));
    archive_entry* entry = nullptr;
    u64 all = 0;
    for (int status; (status = archive_read_next_header(tar.get(), &entry)) == ARCHIVE_OK || status == ARCHIVE_WARN;) {
      if (archive_entry_filetype(entry) != AE_IFREG) continue;
      const auto found = wanted.find(name_of(entry));
      if (found == wanted.end()) continue;
      BH_TRY(save(tar.get(), found->second, all));
    }
    std::vector<std::string> out;
    for (const std::string& name : names) {
      const std::string& path = wanted.at(real(name));
      if (std::error_code error; !fs::exists(path, error)) return fail("{} has no {} in it", path_, name);
      out.push_back(path);
    }
    return out;
  }

 private:
  static std::string name_of(archive_entry* entry) {
    const char* const text = archive_entry_pathname(entry);
    return text != nullptr ? normal_name(text) : std::string{};
  }
  std::string real(std::string name) const {
    for (int turns = 0; turns < 8; ++turns) {
      const auto link = links_.find(name);
      if (link == links_.end()) break;
      name = link->second;
    }
    return name;
  }
  Result<void> save(archive* tar, const std::string& path, u64& all) {
    const UniqueFd out{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600)};
    if (!out) return fail_errno("making {}", path);
    while (true) {
      char block[64 * 1024];
      const la_ssize_t got = archive_read_data(tar, block, sizeof block);
      if (got == 0) return {};
      if (got < 0) return fail("reading {}: {}", path_, archive_error(tar));
      if ((all += static_cast<u64>(got)) > kMaxBlobs) return fail("{} has too much in it", path_);
      if (::write(out.get(), block, static_cast<std::size_t>(got)) != got) return fail_errno("writing {}", path);
    }
  }

  const std::string path_;
  std::map<std::string, std::string> documents_, links_;
};

Result<std::string> need_document(ImageSource& source, const std::string& name, const std::optional<Digest>& digest) {
  BH_ASSIGN(auto text, source.document(name));
  if (!text) return fail("the image has no {}", name);
  Sha256 sha;
  sha.add(*text);
  if (digest && sha.hex() != digest->hex) return fail("the image's {} is not what its digest says", name);
  return std::move(*text);
}

Result<FoundImage> with_config(std::string text, FoundImage image) {
  Sha256 sha;
  sha.add(text);
  image.id = Digest{sha.hex()};
  BH_ASSIGN(image.config, parse_config(text));
  image.config_text = std::move(text);
  if (image.config.layers.size() != image.layers.size())
    return fail("the image has {} layers, and its configuration names {}", image.layers.size(),
                image.config.layers.size());
  return image;
}

Result<FoundImage> find_docker(ImageSource& source, const std::string& list, const std::string& name) {
  BH_ASSIGN(const auto entries, parse_docker_manifest(list));
  BH_ASSIGN(const DockerEntry entry, choose(entries, name));
  FoundImage image;
  for (const std::string& layer : entry.layers) image.layers.push_back({normal_name(layer), std::nullopt, 0});
  BH_ASSIGN(std::string config, need_document(source, normal_name(entry.config), std::nullopt));
  return with_config(std::move(config), std::move(image));
}

}  // namespace

std::string blob_name(const Digest& digest) { return "blobs/sha256/" + digest.hex; }

Result<std::unique_ptr<ImageSource>> open_layout(const std::string& path) {
  UniqueFd folder{::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!folder) return fail_errno("opening the image layout {}", path);
  return std::make_unique<Layout>(path, std::move(folder));
}

Result<std::unique_ptr<ImageSource>> open_archive(const std::string& path) {
  const Utf8Names names;
  auto out = std::make_unique<Archive>(path);
  BH_TRY(out->read_documents());
  return out;
}

Result<FoundImage> find_image(ImageSource& source, const std::string& name) {
  BH_ASSIGN(std::optional<std::string> index, source.document("index.json"));
  if (!index) {
    BH_ASSIGN(const std::optional<std::string> list, source.document("manifest.json"));
    if (!list) return fail("there is no image here: neither an index.json nor a manifest.json");
    return find_docker(source, *list, name);
  }
  std::string wanted = name;
  for (int depth = 0; depth < 4; ++depth) {
    BH_ASSIGN(const std::vector<Descriptor> entries, parse_index(*index));
    BH_ASSIGN(const Descriptor chosen, choose(entries, wanted));
    BH_ASSIGN(std::string text, need_document(source, blob_name(chosen.digest), chosen.digest));
    if (is_index(chosen.media_type)) {  // one image for several architectures
      index = std::move(text);
      wanted.clear();
      continue;
    }
    BH_ASSIGN(const Manifest manifest, parse_manifest(text));
    FoundImage image;
    for (const Descriptor& layer : manifest.layers)
      image.layers.push_back({blob_name(layer.digest), layer.digest, layer.size});
    BH_ASSIGN(std::string config, need_document(source, blob_name(manifest.config.digest), manifest.config.digest));
    return with_config(std::move(config), std::move(image));
  }
  return fail("the image's index leads from one index to the next");
}

// ---- from one process to another; what comes back is judged again

std::string text_of(const FoundImage& image) {
  nlohmann::json layers = nlohmann::json::array();
  for (const FoundImage::Layer& one : image.layers)
    layers.push_back({{"name", one.name}, {"blob", one.blob ? one.blob->text() : ""}, {"size", one.size}});
  const nlohmann::json all = {{"id", image.id.text()}, {"config", image.config_text}, {"layers", layers}};
  return all.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<FoundImage> image_of(const std::string& text) {
  const nlohmann::json all = nlohmann::json::parse(text, nullptr, false);
  try {
    FoundImage out;
    BH_ASSIGN(out.id, parse_digest(all.at("id").get<std::string>()));
    out.config_text = all.at("config").get<std::string>();
    BH_ASSIGN(out.config, parse_config(out.config_text));
    for (const nlohmann::json& one : all.at("layers")) {
      FoundImage::Layer layer{one.at("name").get<std::string>(), std::nullopt, one.at("size").get<u64>()};
      if (const auto blob = one.at("blob").get<std::string>(); !blob.empty()) {
        BH_ASSIGN(layer.blob, parse_digest(blob));
      }
      out.layers.push_back(std::move(layer));
    }
    if (out.layers.size() != out.config.layers.size()) return fail("the image has not as many layers as it says");
    return out;
  } catch (const nlohmann::json::exception&) {
    return fail("what was found in the image was not understood");
  }
}

}  // namespace bulkhead::zone
