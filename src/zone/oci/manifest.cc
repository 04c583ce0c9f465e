#include "zone/oci/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace bulkhead::zone {
namespace {

using Json = nlohmann::json;
constexpr std::size_t kMaxEntries = 4096, kMaxText = 64 * 1024;
constexpr std::string_view kArchitecture = "amd64";

Result<Json> parse(std::string_view text, const char* what) {
  if (text.size() > kMaxDocument) return fail("the image's {} is longer than {} bytes", what, kMaxDocument);
  Json out = Json::parse(text, nullptr, false);
  if (!out.is_object() && !out.is_array()) return fail("the image's {} is not JSON", what);
  return out;
}

// A member that must be a text; empty where it is not there or null.
Result<std::string> text_of(const Json& of, const char* name) {
  const auto found = of.is_object() ? of.find(name) : of.end();
  if (!of.is_object() || found == of.end() || found->is_null()) return std::string{};
  if (!found->is_string()) return fail("in the image, {} is not a text", name);
  std::string text = found->get<std::string>();
  if (text.size() > kMaxText || text.contains('\0')) return fail("in the image, {} is too long or has a NUL", name);
  return text;
}

Result<std::vector<std::string>> texts_of(const Json& of, const char* name) {
  std::vector<std::string> out;
  const auto found = of.is_object() ? of.find(name) : of.end();
  if (!of.is_object() || found == of.end() || found->is_null()) return out;
  if (!found->is_array() || found->size() > kMaxEntries) return fail("in the image, {} is not a list of texts", name);
  for (const Json& one : *found) {
    if (!one.is_string()) return fail("in the image, {} is not a list of texts", name);
    out.push_back(one.get<std::string>());
    if (out.back().size() > kMaxText || out.back().contains('\0'))
      return fail("in the image, {} has a text that is too long or has a NUL", name);
  }
  return out;
}

const Json& member(const Json& of, const char* name) {
  static const Json none = Json::object();
  if (!of.is_object()) return none;
  const auto found = of.find(name);
  return found == of.end() || !found->is_object() ? none : *found;
}

const Json* list(const Json& of, const char* name, std::size_t most) {
  if (!of.is_object()) return nullptr;
  const auto found = of.find(name);
  return found == of.end() || !found->is_array() || found->size() > most ? nullptr : &*found;
}

Result<Descriptor> parse_descriptor(const Json& json) {
  Descriptor out;
  BH_ASSIGN(out.media_type, text_of(json, "mediaType"));
  BH_ASSIGN(const std::string digest, text_of(json, "digest"));
  BH_ASSIGN(out.digest, parse_digest(digest));
  const auto size = json.find("size");
  if (size == json.end() || !size->is_number_unsigned()) return fail("in the image, the blob {} has no size", digest);
  out.size = size->get<u64>();
  BH_ASSIGN(out.os, text_of(member(json, "platform"), "os"));
  BH_ASSIGN(out.architecture, text_of(member(json, "platform"), "architecture"));
  const Json& annotations = member(json, "annotations");
  BH_ASSIGN(out.name, text_of(annotations, "io.containerd.image.name"));
  if (out.name.empty()) {
    BH_ASSIGN(out.name, text_of(annotations, "org.opencontainers.image.ref.name"));
  }
  return out;
}

// "latest" is asked for by "latest" and by "registry.example/library/debian:latest", and the other way round.
bool same_name(const std::string& there, const std::string& wanted) {
  if (there == wanted) return true;
  const auto ends = [](const std::string& longer, const std::string& shorter) {
    return longer.size() > shorter.size() && longer.ends_with(shorter) &&
           (longer[longer.size() - shorter.size() - 1] == ':' || longer[longer.size() - shorter.size() - 1] == '/');
  };
  return !there.empty() && !wanted.empty() && (ends(there, wanted) || ends(wanted, there));
}

std::string names_of(const auto& entries, auto&& name) {
  std::string out;
  for (const auto& entry : entries) out += (out.empty() ? "" : ", ") + name(entry);
  return out.empty() ? "none" : out.substr(0, 300);
}

}  // namespace

Result<Digest> parse_digest(std::string_view text) {
  const std::string_view hex = text.starts_with("sha256:") ? text.substr(7) : std::string_view{};
  const auto digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (hex.size() != 64 || !std::ranges::all_of(hex, digit))
    return fail("in the image, '{}' is not a SHA-256 digest", text.substr(0, 100));
  return Digest{std::string{hex}};
}

bool is_index(std::string_view type) {
  return type == "application/vnd.oci.image.index.v1+json" ||
         type == "application/vnd.docker.distribution.manifest.list.v2+json";
}

Result<std::vector<Descriptor>> parse_index(std::string_view text) {
  BH_ASSIGN(const Json json, parse(text, "index"));
  const Json* const entries = list(json, "manifests", kMaxEntries);
  if (entries == nullptr) return fail("the image's index has no list of manifests");
  std::vector<Descriptor> out;
  for (const Json& entry : *entries) {
    BH_ASSIGN(Descriptor one, parse_descriptor(entry));
    out.push_back(std::move(one));
  }
  return out;
}

Result<Descriptor> choose(const std::vector<Descriptor>& entries, const std::string& name) {
  std::vector<Descriptor> left;
  for (const Descriptor& entry : entries) {
    const bool ours = (entry.architecture.empty() || entry.architecture == kArchitecture) &&
                      (entry.os.empty() || entry.os == "linux");
    if (ours && (name.empty() || same_name(entry.name, name))) left.push_back(entry);
  }
  // The same image under several names is one image.
  if (!left.empty() && std::ranges::all_of(left, [&](const Descriptor& one) { return one.digest == left[0].digest; }))
    return left[0];
  const auto shown = [](const Descriptor& one) {
    const std::string what = one.name.empty() ? one.digest.text() : one.name;
    return one.architecture.empty() ? what : what + " (" + one.os + "/" + one.architecture + ")";
  };
  if (left.empty())
    return fail("there is no image {}for linux/{} here: there is {}", name.empty() ? "" : name + " ", kArchitecture,
                names_of(entries, shown));
  return fail("there are several images here, name one: {}", names_of(left, shown));
}

Result<Manifest> parse_manifest(std::string_view text) {
  BH_ASSIGN(const Json json, parse(text, "manifest"));
  Manifest out;
  BH_ASSIGN(out.config, parse_descriptor(member(json, "config")));
  const Json* const layers = list(json, "layers", kMaxLayers);
  if (layers == nullptr) return fail("the image's manifest has no list of at most {} layers", kMaxLayers);
  for (const Json& layer : *layers) {
    BH_ASSIGN(Descriptor one, parse_descriptor(layer));
    out.layers.push_back(std::move(one));
  }
  return out;
}

Result<std::vector<DockerEntry>> parse_docker_manifest(std::string_view text) {
  BH_ASSIGN(const Json json, parse(text, "manifest.json"));
  if (!json.is_array() || json.size() > kMaxEntries) return fail("the archive's manifest.json is not a list of images");
  std::vector<DockerEntry> out;
  for (const Json& entry : json) {
    DockerEntry one;
    BH_ASSIGN(one.config, text_of(entry, "Config"));
    BH_ASSIGN(one.names, texts_of(entry, "RepoTags"));
    BH_ASSIGN(one.layers, texts_of(entry, "Layers"));
    if (one.config.empty() || one.layers.size() > kMaxLayers)
      return fail("the archive's manifest.json has an image without a configuration, or with too many layers");
    out.push_back(std::move(one));
  }
  return out;
}

Result<DockerEntry> choose(const std::vector<DockerEntry>& entries, const std::string& name) {
  std::vector<DockerEntry> left;
  for (const DockerEntry& entry : entries)
    if (name.empty() || std::ranges::any_of(entry.names, [&](const std::string& one) { return same_name(one, name); }))
      left.push_back(entry);
  const auto shown = [](const DockerEntry& one) { return one.names.empty() ? one.config : one.names[0]; };
  if (left.size() == 1) return left[0];
  if (left.empty()) return fail("there is no image {} here: there is {}", name, names_of(entries, shown));
  return fail("there are several images here, name one: {}", names_of(left, shown));
}

Result<ImageConfig> parse_config(std::string_view text) {
  BH_ASSIGN(const Json json, parse(text, "configuration"));
  ImageConfig out;
  BH_ASSIGN(out.os, text_of(json, "os"));
  BH_ASSIGN(out.architecture, text_of(json, "architecture"));
  BH_ASSIGN(out.created, text_of(json, "created"));
  const Json& config = member(json, "config");
  BH_ASSIGN(out.entrypoint, texts_of(config, "Entrypoint"));
  BH_ASSIGN(out.command, texts_of(config, "Cmd"));
  BH_ASSIGN(out.environment, texts_of(config, "Env"));
  std::erase_if(out.environment, [](const std::string& one) { return one.find('=') == 0 || !one.contains('='); });
  BH_ASSIGN(out.user, text_of(config, "User"));
  BH_ASSIGN(out.directory, text_of(config, "WorkingDir"));
  if (!out.architecture.empty() && out.architecture != kArchitecture)
    return fail("the image is for {}/{}, and zones are linux/{}", out.os, out.architecture, kArchitecture);
  if (!out.os.empty() && out.os != "linux") return fail("the image is for {}, and zones are linux", out.os);
  BH_ASSIGN(const std::vector<std::string> layers, texts_of(member(json, "rootfs"), "diff_ids"));
  for (const std::string& layer : layers) {
    BH_ASSIGN(Digest one, parse_digest(layer));
    out.layers.push_back(std::move(one));
  }
  return out;
}

}  // namespace bulkhead::zone
