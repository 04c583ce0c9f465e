// The JSON documents of an image [oci-image-spec], [docker-image-spec]: read from text, every field judged.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

inline constexpr u64 kMaxDocument = 4_MiB;
inline constexpr std::size_t kMaxLayers = 512;

// sha256:HEX. Others are refused.
struct Digest {
  std::string hex;  // 64 small digits
  std::string text() const { return "sha256:" + hex; }
  bool operator==(const Digest&) const = default;
};
Result<Digest> parse_digest(std::string_view text);

// A blob that a document refers to.
struct Descriptor {
  std::string media_type;
  Digest digest;
  u64 size = 0;
  std::string os, architecture;  // of an index's entries; may be empty
  std::string name;              // the tag that an index gives it, or empty
};

// The entries of an index.
Result<std::vector<Descriptor>> parse_index(std::string_view json);
// Which of them is asked for: the one named `name` (of all where it is empty), and of this architecture.
// Errors: none, or several, with what there is.
Result<Descriptor> choose(const std::vector<Descriptor>& entries, const std::string& name);
bool is_index(std::string_view media_type);

struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;  // lowest first
};
Result<Manifest> parse_manifest(std::string_view json);

// `docker save`: the files in the archive instead of digests.
struct DockerEntry {
  std::string config;
  std::vector<std::string> names, layers;
};
Result<std::vector<DockerEntry>> parse_docker_manifest(std::string_view json);
Result<DockerEntry> choose(const std::vector<DockerEntry>& entries, const std::string& name);

struct ImageConfig {
  std::vector<std::string> entrypoint, command, environment;
  std::string user, directory, created, os, architecture;
  std::vector<Digest> layers;  // of what is in them, uncompressed
};
Result<ImageConfig> parse_config(std::string_view json);

}  // namespace bulkhead::zone
