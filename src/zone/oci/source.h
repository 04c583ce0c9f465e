// Where an image's documents and blobs are: a folder in OCI's layout, or an archive of one kind or the other.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "zone/oci/manifest.h"
#include "zone/oci/reference.h"
#include "zone/store/tool.h"

namespace bulkhead::zone {

class ImageSource {
 public:
  virtual ~ImageSource() = default;
  // A document by its name in the image's root ("index.json"), at most kMaxDocument bytes. Empty: it is not there.
  virtual Result<std::optional<std::string>> document(const std::string& name) = 0;
  // Files that layers are read from, in this order; they stay until the source goes. `scratch`: a folder for them,
  // which is there.
  virtual Result<std::vector<std::string>> files(const std::vector<std::string>& names, const std::string& scratch) = 0;
};

// Errors: there is nothing of the kind at `path`.
Result<std::unique_ptr<ImageSource>> open_layout(const std::string& path);
Result<std::unique_ptr<ImageSource>> open_archive(const std::string& path);

std::string blob_name(const Digest& digest);  // "blobs/sha256/HEX"

// An image found in a source: its configuration, judged by its digest, and its layers.
struct FoundImage {
  Digest id;  // of the configuration, which names the layers' contents
  std::string config_text;
  ImageConfig config;
  struct Layer {
    std::string name;            // in the source
    std::optional<Digest> blob;  // of the file as it is there, where the source says
    u64 size = 0;                // with `blob`
  };
  std::vector<Layer> layers;
};
Result<FoundImage> find_image(ImageSource& source, const std::string& name);

// As text, from one process to another. Errors: it is none.
std::string text_of(const FoundImage& image);
Result<FoundImage> image_of(const std::string& text);

}  // namespace bulkhead::zone
