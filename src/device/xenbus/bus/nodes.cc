#include "device/xenbus/bus/nodes.h"

#include <charconv>

namespace bulkhead::device::xenbus {

std::optional<u32> parse_number(std::string_view text) {
  u32 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<u32> NodeReader::number(std::string_view name) const {
  const std::optional<std::string> value = text(name);
  return value ? parse_number(*value) : std::nullopt;
}

}  // namespace bulkhead::device::xenbus
