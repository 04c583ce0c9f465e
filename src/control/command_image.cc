#include <nlohmann/json.hpp>

#include "control/commands.h"

namespace bulkhead::control {
namespace {

using zone::StoredImage;
using Verb = ImageVerbCommand::Verb;

nlohmann::ordered_json as_json(const StoredImage& image) {
  return {{"digest", image.id.text()},
          {"name", image.name},
          {"bytes", image.bytes},
          {"created", image.config.created},
          {"rootfs", image.rootfs}};
}

std::string as_line(const StoredImage& image) {
  return fmt::format("{}  {:>7.1f} MiB  {}\n", image.id.hex.substr(0, 12), static_cast<double>(image.bytes) / (1 << 20),
                     image.name);
}

std::string list(const std::vector<StoredImage>& images, bool json) {
  if (json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const StoredImage& image : images) out.push_back(as_json(image));
    return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  std::string text;
  for (const StoredImage& image : images) text += as_line(image);
  return text.empty() ? "no images yet: `bulkhead image load` or `bulkhead run IMAGE` unpacks one\n" : text;
}

// One in the cache, or one that can be brought there.
Result<StoredImage> find(const std::string& what, zone::Cache& cache, zone::Workshop& workshop) {
  const auto reference = zone::parse_reference(what);
  return reference ? zone::load_image(*reference, cache, workshop) : zone::find_stored(cache, what);
}

Result<std::string> work(const ImageVerbCommand& command, zone::Workshop& workshop) {
  BH_ASSIGN(zone::Cache cache, zone::Cache::open());
  if (command.verb == Verb::kList) return list(zone::list_images(cache), command.json);
  if (command.verb == Verb::kRemove) {
    BH_ASSIGN(const StoredImage image, zone::find_stored(cache, command.image));
    BH_TRY(zone::remove_image(cache, image));
    return std::string{};
  }
  if (command.verb == Verb::kInspect) {
    BH_ASSIGN(const StoredImage image, find(command.image, cache, workshop));
    nlohmann::ordered_json out = as_json(image);
    out["config"] = nlohmann::ordered_json::parse(image.config_text, nullptr, false);
    return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  const auto reference = zone::parse_reference(command.image);
  if (!reference) return fail("{} is no container image (see `bulkhead image --help`)", command.image);
  BH_ASSIGN(const StoredImage image, zone::load_image(*reference, cache, workshop));
  return image.id.text() + "\n";
}

}  // namespace

int image_command(const ImageVerbCommand& command, Surroundings& around) {
  const auto text = work(command, around.workshop);
  around.workshop.progress.done();
  if (!text) return say_failure(text.error(), around);
  print(*text);
  return 0;
}

}  // namespace bulkhead::control
