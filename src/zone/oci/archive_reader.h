// Tar files through libarchive, which parses them and does nothing else for us. Any filter that it knows.
#pragma once
#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

// While it lives, this thread's names are UTF-8, as those in tar files are; libarchive drops others.
class Utf8Names {
 public:
  Utf8Names() : ours_{::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)}, before_{::uselocale(ours_)} {}
  ~Utf8Names() {
    ::uselocale(before_);
    if (ours_ != nullptr) ::freelocale(ours_);
  }
  Utf8Names(const Utf8Names&) = delete;

 private:
  locale_t ours_, before_;
};

struct ArchiveEnd {
  void operator()(archive* of) const { archive_read_free(of); }
};
using ArchivePtr = std::unique_ptr<archive, ArchiveEnd>;

// A tar file, perhaps compressed. Errors: it cannot be opened, or is none.
Result<ArchivePtr> open_tar(const std::string& path);

// The bytes of a file behind its compression (none, gzip, zstd, ...). Errors as above.
Result<ArchivePtr> open_compressed(const std::string& path);

// A tar stream whose bytes come from `read`, which returns the next piece, empty at the end; valid until its next call.
class TarStream {
 public:
  using Read = std::function<Result<std::span<const std::byte>>()>;
  explicit TarStream(Read read);
  // Null at the end. Errors: it is broken, or `read` failed.
  Result<archive_entry*> next();
  // Some of the current entry's data; empty at its end. `offset`: where in the file it belongs.
  Result<std::span<const std::byte>> data(u64& offset);

 private:
  static la_ssize_t piece(archive*, void* self, const void** out);
  Error error(const char* what) const;
  Read read_;
  std::string failed_;  // what read_ said
  ArchivePtr archive_;
  archive_entry* entry_ = nullptr;
  bool open_ = false;
};

std::string archive_error(archive* of);

// A tar file with an index.json or a manifest.json in its root.
bool is_image_archive(const std::string& path);

// Without "./" and "/" in front, and without a trailing slash. Empty: the root, or no name.
std::string normal_name(std::string_view name);

}  // namespace bulkhead::zone
