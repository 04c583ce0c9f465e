// Folders as file system images, by the host's own tools.
#pragma once
#include <string>

#include "zone/image/root_format.h"
#include "zone/store/tool.h"

namespace bulkhead::zone {

// `image` must not exist. Owners are kept when we are root; otherwise everything belongs to root in the image.
Result<void> pack_erofs(const std::string& folder, const std::string& image, Workshop& workshop);

// An ext4 image with room for `spare` bytes more than the folder holds; sparse, so the spare room costs nothing yet.
enum class Journal : u8 { kNo, kYes };
Result<void> pack_ext4(const std::string& folder, const std::string& image, u64 spare, Journal journal,
                       Workshop& workshop);

// The opposite: an erofs image's files into `folder`, which must not exist.
Result<void> unpack_erofs(const std::string& image, const std::string& folder, Workshop& workshop);

}  // namespace bulkhead::zone
