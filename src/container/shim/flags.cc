#include "container/shim/flags.h"

#include <algorithm>
#include <cctype>

#include "zone/store/sha256.h"

namespace bulkhead::container {

Result<ShimFlags> parse_flags(const std::vector<std::string>& arguments) {
  ShimFlags out;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (!word.starts_with('-')) {
      if (!out.action.empty()) return fail("one action at a time: {} and {}", out.action, word);
      out.action = word;
      continue;
    }
    // As Go's flags: one dash or two, the value behind = or as the next word.
    std::string name = word.substr(word.starts_with("--") ? 2 : 1), value;
    const std::size_t equals = name.find('=');
    const bool has_value = equals != std::string::npos;
    if (has_value) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    if (name == "debug") continue;
    if (name == "v" || name == "version") {
      out.version = true;
      continue;
    }
    std::string* const to = name == "namespace"        ? &out.space
                            : name == "address"        ? &out.address
                            : name == "publish-binary" ? &out.publish_program
                            : name == "id"             ? &out.id
                            : name == "bundle"         ? &out.bundle
                            : name == "socket"         ? &value  // of older versions: not used
                                                       : nullptr;
    if (to == nullptr) return fail("there is no flag {}", word);
    if (!has_value && i + 1 == arguments.size()) return fail("the flag {} needs a value", word);
    *to = has_value ? value : arguments[++i];
  }
  if (out.version) return out;
  if (out.space.empty() || out.id.empty()) return fail("a shim needs -namespace and -id");
  if (out.id.find('/') != std::string::npos) return fail("-id {}: no name for a container", out.id);
  return out;
}

std::string zone_name(const ShimFlags& flags, const std::string& pod) {
  std::string out = (flags.space + "-" + pod).substr(0, 63);
  std::ranges::replace_if(out, [](unsigned char c) { return std::isalnum(c) == 0 && c != '.'; }, '-');
  if (out.starts_with('-')) out[0] = 'z';
  return out;
}

std::string server_socket(const ShimFlags& flags, const std::string& pod) {
  zone::Sha256 sha;
  for (const std::string* text : {&flags.address, &flags.space, &pod}) sha.add_text(*text);
  return std::string{kRuntimeFolder} + "/shims/" + sha.hex().substr(0, 32) + ".sock";
}

}  // namespace bulkhead::container
