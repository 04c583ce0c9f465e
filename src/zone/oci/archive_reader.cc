#include "zone/oci/archive_reader.h"

#include <span>

namespace bulkhead::zone {
namespace {

constexpr std::size_t kBlock = 256 * 1024;
constexpr int kMostLooked = 100'000;  // entries of a file that may be an image

ArchivePtr with_filters() {
  ArchivePtr out{archive_read_new()};
  archive_read_support_filter_gzip(out.get());
  archive_read_support_filter_zstd(out.get());
  archive_read_support_filter_bzip2(out.get());
  archive_read_support_filter_xz(out.get());
  return out;
}

}  // namespace

std::string archive_error(archive* of) {
  const char* const text = archive_error_string(of);
  return text != nullptr ? text : "it is broken";
}

Result<ArchivePtr> open_tar(const std::string& path) {
  ArchivePtr out = with_filters();
  archive_read_support_format_tar(out.get());
  if (archive_read_open_filename(out.get(), path.c_str(), kBlock) != ARCHIVE_OK)
    return fail("reading {}: {}", path, archive_error(out.get()));
  return out;
}

Result<ArchivePtr> open_compressed(const std::string& path) {
  ArchivePtr out = with_filters();
  archive_read_support_format_raw(out.get());
  archive_read_support_format_empty(out.get());
  if (archive_read_open_filename(out.get(), path.c_str(), kBlock) != ARCHIVE_OK)
    return fail("reading {}: {}", path, archive_error(out.get()));
  return out;
}

TarStream::TarStream(Read read) : read_{std::move(read)}, archive_{archive_read_new()} {
  archive_read_support_format_tar(archive_.get());
  archive_read_support_format_empty(archive_.get());
}

la_ssize_t TarStream::piece(archive* of, void* self, const void** out) {
  auto& stream = *static_cast<TarStream*>(self);
  auto bytes = stream.read_();
  if (!bytes) {
    stream.failed_ = bytes.error().message;
    archive_set_error(of, EIO, "%s", "the layer cannot be read");
    return -1;
  }
  *out = bytes->data();
  return static_cast<la_ssize_t>(bytes->size());
}

Error TarStream::error(const char* what) const {
  return {failed_.empty() ? fmt::format("{}: {}", what, archive_error(archive_.get())) : failed_};
}

Result<archive_entry*> TarStream::next() {
  if (!std::exchange(open_, true) && archive_read_open(archive_.get(), this, nullptr, piece, nullptr) != ARCHIVE_OK)
    return std::unexpected(error("reading the layer"));
  const int status = archive_read_next_header(archive_.get(), &entry_);
  if (status == ARCHIVE_EOF) return nullptr;
  if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return std::unexpected(error("reading the layer"));
  return entry_;
}

Result<std::span<const std::byte>> TarStream::data(u64& offset) {
  const void* bytes = nullptr;
  std::size_t size = 0;
  la_int64_t at = 0;
  const int status = archive_read_data_block(archive_.get(), &bytes, &size, &at);
  if (status == ARCHIVE_EOF) return std::span<const std::byte>{};
  if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return std::unexpected(error("reading a file of the layer"));
  offset = static_cast<u64>(at);
  return std::span{static_cast<const std::byte*>(bytes), size};
}

std::string normal_name(std::string_view name) {
  while (name.starts_with("./") || name.starts_with('/')) name.remove_prefix(name[0] == '/' ? 1 : 2);
  while (name.ends_with('/')) name.remove_suffix(1);
  return name == "." ? std::string{} : std::string{name};
}

bool is_image_archive(const std::string& path) {
  const auto tar = open_tar(path);
  if (!tar) return false;
  archive_entry* entry = nullptr;
  for (int i = 0; i < kMostLooked && archive_read_next_header(tar->get(), &entry) == ARCHIVE_OK; ++i) {
    const char* const text = archive_entry_pathname(entry);
    const std::string name = text != nullptr ? normal_name(text) : "";
    if (name == "index.json" || name == "manifest.json" || name == "oci-layout") return true;
  }
  return false;
}

}  // namespace bulkhead::zone
