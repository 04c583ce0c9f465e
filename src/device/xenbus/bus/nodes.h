// What the two ends of a split driver tell each other in xenstore: names and short texts in their directories.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "device/xenbus/ports.h"

namespace bulkhead::device::xenbus {

using Nodes = std::vector<std::pair<std::string, std::string>>;  // name in the directory, value

// A decimal number as drivers write it; nothing else, no sign, no spaces.
std::optional<u32> parse_number(std::string_view text);

// One directory of the guest's, which may contain anything and change at any moment: read each node once.
class NodeReader {
 public:
  NodeReader(StorePort& store, std::string directory) : store_{store}, directory_{std::move(directory)} {}
  std::optional<std::string> text(std::string_view name) const {
    return store_.read(directory_ + "/" + std::string{name});
  }
  std::optional<u32> number(std::string_view name) const;
  bool flag(std::string_view name) const { return number(name).value_or(0) != 0; }

 private:
  StorePort& store_;
  std::string directory_;
};

}  // namespace bulkhead::device::xenbus
