#include "zone/oci/layer.h"

#include <signal.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <span>

#include "zone/oci/archive_reader.h"
#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

constexpr std::string_view kWhiteout = ".wh.", kOpaque = ".wh..wh..opq", kReserved = ".wh..wh.";

// The layer's bytes out of their compression, counted and hashed on the way to whoever parses them.
class Content {
 public:
  Content(ArchivePtr raw, const UnpackLimits& limits, UnpackCounts& counts, Workshop& workshop)
      : raw_{std::move(raw)}, limits_{limits}, counts_{counts}, workshop_{workshop} {}

  Result<std::span<const std::byte>> next() {
    if (!begun_) {
      archive_entry* entry = nullptr;
      const int status = archive_read_next_header(raw_.get(), &entry);
      if (status == ARCHIVE_EOF) return std::span<const std::byte>{};
      if (status != ARCHIVE_OK) return fail("reading the layer: {}", archive_error(raw_.get()));
      begun_ = true;
    }
    const void* bytes = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    const int status = archive_read_data_block(raw_.get(), &bytes, &size, &offset);
    if (status == ARCHIVE_EOF) return std::span<const std::byte>{};
    if (status != ARCHIVE_OK) return fail("uncompressing the layer: {}", archive_error(raw_.get()));
    counts_.bytes += size;
    if (counts_.bytes > limits_.bytes) return fail("the image has more than {} bytes in its layers", limits_.bytes);
    if (counts_.bytes > limits_.free_bytes && counts_.bytes - limits_.free_bytes > counts_.packed_bytes * limits_.ratio)
      return fail("the image's layers grow more than {} times when uncompressed, which no image does", limits_.ratio);
    const std::span content{static_cast<const std::byte*>(bytes), size};
    sha_.add(content);
    workshop_.progress.tick();
    const int number = workshop_.signals != nullptr ? workshop_.signals->first() : 0;
    if (number != 0 && number != SIGWINCH) return fail("interrupted while unpacking the image");
    return content;
  }
  // What comes behind the tar's end belongs to the digest.
  Result<std::string> digest() {
    while (true) {
      BH_ASSIGN(const auto rest, next());
      if (rest.empty()) return sha_.hex();
    }
  }

 private:
  ArchivePtr raw_;
  const UnpackLimits& limits_;
  UnpackCounts& counts_;
  Workshop& workshop_;
  Sha256 sha_;
  bool begun_ = false;
};

Tree::Attributes attributes_of(archive_entry* entry) {
  Tree::Attributes out;
  out.uid = static_cast<u32>(archive_entry_uid(entry));
  out.gid = static_cast<u32>(archive_entry_gid(entry));
  out.mode = archive_entry_perm(entry);
  out.time = {archive_entry_mtime(entry), static_cast<long>(archive_entry_mtime_nsec(entry))};
  return out;
}

std::string text(const char* utf8, const char* other) { return utf8 != nullptr ? utf8 : other != nullptr ? other : ""; }

class Unpacker {
 public:
  Unpacker(TarStream& tar, Tree& tree, const UnpackLimits& limits, UnpackCounts& counts)
      : tar_{tar}, tree_{tree}, limits_{limits}, counts_{counts} {}

  Result<void> run() {
    tree_.begin_layer();
    while (true) {
      BH_ASSIGN(archive_entry* const entry, tar_.next());
      if (entry == nullptr) return tree_.end_layer();
      if (++counts_.entries > limits_.entries) return fail("the image has more than {} files", limits_.entries);
      BH_TRY(take(entry));
    }
  }

 private:
  Result<void> take(archive_entry* entry) {
    const std::string name = normal_name(text(archive_entry_pathname_utf8(entry), archive_entry_pathname(entry)));
    const std::size_t slash = name.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : name.substr(0, slash);
    const std::string last = slash == std::string::npos ? name : name.substr(slash + 1);
    if (last == kOpaque) return tree_.clear(folder);
    if (last.starts_with(kReserved)) return {};  // of file systems that made the layer
    if (last.starts_with(kWhiteout)) return tree_.remove(folder + "/" + last.substr(kWhiteout.size()));
    const std::string target = text(archive_entry_hardlink_utf8(entry), archive_entry_hardlink(entry));
    if (!target.empty()) return tree_.hard_link(name, normal_name(target));
    return make(entry, name);
  }

  Result<void> make(archive_entry* entry, const std::string& name) {
    const Tree::Attributes attributes = attributes_of(entry);
    switch (archive_entry_filetype(entry)) {
      case AE_IFDIR:
        return tree_.folder(name, attributes);
      case AE_IFLNK:
        return tree_.symlink(name, text(archive_entry_symlink_utf8(entry), archive_entry_symlink(entry)), attributes);
      case AE_IFIFO:
        return tree_.pipe(name, attributes);
      case AE_IFREG:
        return file(entry, name, attributes);
      default:
        // Device nodes: a zone has its own /dev, and on the host they would be the host's.
        ++counts_.devices;
        return {};
    }
  }

  Result<void> file(archive_entry* entry, const std::string& name, const Tree::Attributes& attributes) {
    if (name.empty()) return fail("the image has a file without a name");
    BH_ASSIGN(const UniqueFd out, tree_.create(name));
    u64 end = 0;
    while (true) {
      u64 offset = 0;
      BH_ASSIGN(std::span<const std::byte> bytes, tar_.data(offset));
      if (bytes.empty()) break;
      if (offset < end || offset > limits_.bytes) return fail("the image has a file with impossible holes: {}", name);
      while (!bytes.empty()) {
        const ssize_t put = ::pwrite(out.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return fail_errno("writing {} of the image", name);
        bytes = bytes.subspan(static_cast<std::size_t>(put));
        offset += static_cast<u64>(put);
      }
      end = offset;
    }
    const auto size = static_cast<u64>(archive_entry_size(entry));
    if (size > limits_.bytes) return fail("the image has a file of {} bytes", size);
    if (size > end && ::ftruncate(out.get(), static_cast<off_t>(size)) != 0) return fail_errno("writing {}", name);
    BH_TRY(tree_.finish(out, attributes));
    set_extended(entry, out.get());
    return {};
  }

  // Behind the owner, whose change takes capabilities away. What the host's file system does not have, it has not.
  static void set_extended(archive_entry* entry, int file) {
    archive_entry_xattr_reset(entry);
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
      const std::string_view which = name != nullptr ? name : "";
      if (which.starts_with("user.") || (which == "security.capability" && ::geteuid() == 0))
        ::fsetxattr(file, name, value, size, 0);
    }
  }

  TarStream& tar_;
  Tree& tree_;
  const UnpackLimits& limits_;
  UnpackCounts& counts_;
};

}  // namespace

Result<void> apply_layer(const std::string& path, const std::optional<Digest>& content, Tree& tree,
                         const UnpackLimits& limits, UnpackCounts& counts, Workshop& workshop) {
  const Utf8Names names;
  std::error_code error;
  counts.packed_bytes += std::filesystem::file_size(path, error);
  BH_ASSIGN(ArchivePtr raw, open_compressed(path));
  Content bytes{std::move(raw), limits, counts, workshop};
  TarStream tar{[&] { return bytes.next(); }};
  BH_TRY(Unpacker(tar, tree, limits, counts).run());
  BH_ASSIGN(const std::string found, bytes.digest());
  if (content && found != content->hex)
    return fail("a layer of the image is not what its configuration says: sha256:{} instead of {}", found,
                content->text());
  return {};
}

}  // namespace bulkhead::zone
