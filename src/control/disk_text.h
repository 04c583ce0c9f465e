// What `bulkhead disk` reads and prints, in qemu-img's words.
#pragma once
#include <nlohmann/json.hpp>

#include "base/bits.h"
#include "block/tools/edit.h"
#include "control/commands.h"

namespace bulkhead::control {

// NAME=VALUE,NAME=VALUE of -o, into `image`.
Result<void> read_options(block::tools::NewImage& image, const std::vector<std::string>& texts);
Result<block::Preallocation> preallocation_of(const std::string& text);

nlohmann::ordered_json info_json(block::Node& node, const std::string& path);
std::string info_text(const nlohmann::ordered_json& info);
nlohmann::ordered_json check_json(const block::qcow2::CheckResult& result, const std::string& path);
std::string check_text(const block::qcow2::CheckResult& result);
std::string map_json(const std::vector<block::tools::MapLine>& lines);
std::string map_text(const std::vector<block::tools::MapLine>& lines);
nlohmann::ordered_json snapshots_json(const block::qcow2::Qcow2Node& image);
std::string snapshots_text(const nlohmann::ordered_json& list);

}  // namespace bulkhead::control
