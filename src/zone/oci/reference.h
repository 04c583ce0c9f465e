// What the user named: a container image, or something else.
#pragma once
#include <optional>
#include <string>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

struct ImageReference {
  enum class Kind : u8 {
    kLayout,      // oci:FOLDER[:NAME]
    kArchive,     // oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]: the content says which of the two it is
    kContainerd,  // containerd:NAME
  };
  Kind kind = Kind::kLayout;
  std::string path;  // kContainerd: empty
  std::string name;  // a tag, or a name with a tag; empty: the only image there
  std::string text;  // as it was given
};

// Nothing: `text` does not name an image. Looks at files: a plain path is an image when it is a folder with an
// oci-layout in it, or a tar file with an index of images.
std::optional<ImageReference> parse_reference(const std::string& text);

}  // namespace bulkhead::zone
