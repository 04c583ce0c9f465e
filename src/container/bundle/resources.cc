#include "container/bundle/resources.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace bulkhead::container {
namespace {

using Json = nlohmann::json;

void add(Settings& out, const char* file, std::string value, bool required) {
  pod::Setting& setting = *out.Add();
  setting.set_file(file);
  setting.set_value(std::move(value));
  setting.set_required(required);
}

std::string limit_text(i64 limit) { return limit < 0 ? "max" : std::to_string(limit); }

Result<void> add_memory(const Json& memory, Settings& out) {
  const i64 limit = memory.value("limit", i64{0});
  const i64 swap = memory.value("swap", i64{0});
  if (limit != 0) add(out, "memory.max", limit_text(limit), true);
  if (swap != 0) {
    if (swap > 0 && limit > 0 && swap < limit)
      return fail(
          "linux.resources.memory: swap ({}) counts memory and swap together, so it cannot be less than limit ({})",
          swap, limit);
    // Version 2 counts swap alone.
    add(out, "memory.swap.max", swap < 0 || limit < 0 ? "max" : std::to_string(swap - limit), false);
  }
  if (const i64 low = memory.value("reservation", i64{0}); low > 0) add(out, "memory.low", limit_text(low), false);
  return {};
}

void add_cpu(const Json& cpu, Settings& out) {
  // 2..262144 to 1..10000, as every runtime does it.
  if (const u64 shares = cpu.value("shares", u64{0}); shares != 0) {
    const u64 clamped = std::clamp<u64>(shares, 2, 262144);
    add(out, "cpu.weight", std::to_string(1 + (clamped - 2) * 9999 / 262142), false);
  }
  const i64 quota = cpu.value("quota", i64{0});
  const u64 period = cpu.value("period", u64{0});
  if (quota == 0 && period == 0) return;
  add(out, "cpu.max", fmt::format("{} {}", quota > 0 ? std::to_string(quota) : "max", period != 0 ? period : 100000),
      quota > 0);
}

}  // namespace

Result<void> add_settings(const Json& resources, Settings& out) {
  const auto part = [&](const char* name) {
    const auto found = resources.find(name);
    return found != resources.end() && found->is_object() ? *found : Json::object();
  };
  BH_TRY(add_memory(part("memory"), out));
  add_cpu(part("cpu"), out);
  if (const i64 limit = part("pids").value("limit", i64{0}); limit != 0) add(out, "pids.max", limit_text(limit), true);
  if (const auto unified = resources.find("unified"); unified != resources.end() && unified->is_object())
    for (const auto& [file, value] : unified->items()) add(out, file.c_str(), value.get<std::string>(), true);
  return {};
}

Result<void> add_settings_from(const std::string& text, Settings& out) {
  const Json resources = Json::parse(text, nullptr, false);
  if (!resources.is_object()) return fail("the resources are no JSON object");
  try {
    return add_settings(resources, out);
  } catch (const Json::exception& error) {
    return fail("the resources: {}", error.what());
  }
}

}  // namespace bulkhead::container
