// Images in the cache: a root file system and what is to be run in it, by the digest of the image's configuration.
#pragma once
#include <string>
#include <vector>

#include "zone/oci/manifest.h"
#include "zone/oci/reference.h"
#include "zone/oci/user.h"
#include "zone/store/cache.h"

namespace bulkhead::zone {

struct StoredImage {
  Digest id;
  std::string rootfs;  // a disk image
  std::string config_text, passwd, group, name;
  ImageConfig config;
  u64 bytes = 0;  // of the disk image
};

// The image, unpacked if it is not in the cache yet. Errors: it is not there, or broken, or hostile.
Result<StoredImage> load_image(const ImageReference& reference, Cache& cache, Workshop& workshop);

std::vector<StoredImage> list_images(const Cache& cache);
// By its name as given to load_image(), or by the beginning of its digest. Errors: none, or several.
Result<StoredImage> find_stored(const Cache& cache, const std::string& what);
Result<void> remove_image(const Cache& cache, const StoredImage& image);

// What a zone shall run: the image's entry point and command, where `arguments` replace the latter.
struct ImageCommand {
  std::vector<std::string> command, environment;
  std::string directory;
  ImageUser user;
};
struct CommandChanges {
  std::vector<std::string> arguments, environment;
  std::string directory, user;  // empty: the image's
  bool own_entrypoint = false;
  std::string entrypoint;  // with own_entrypoint; empty: none
};
Result<ImageCommand> command_of(const StoredImage& image, const CommandChanges& changes);

}  // namespace bulkhead::zone
