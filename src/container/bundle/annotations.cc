#include "container/bundle/annotations.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/choose.h"

namespace bulkhead::container {
namespace {

// A pod's overhead for its monitor is part of its limit, and no reason for another vCPU.
constexpr double kCpuOverhead = 0.1;
constexpr char kAllowedBackends[] = "auto, pv or pvh";

const std::string* find(const Annotations& annotations, const char* name) {
  const auto found = annotations.find(name);
  return found == annotations.end() ? nullptr : &found->second;
}

std::unexpected<Error> refuse(const char* name, const std::string& value, const std::string& allowed) {
  return fail("annotation {}: \"{}\" is not allowed; it must be {}", name, value, allowed);
}

Result<void> read_backend(const Annotations& annotations, ZoneWish& out) {
  const std::string* ours = nullptr;
  for (const char* const name : {kBackendAnnotation, kOldBackendAnnotation}) {
    const std::string* const value = find(annotations, name);
    if (value == nullptr) continue;
    if (*value != "auto" && *value != "pv" && *value != "pvh") return refuse(name, *value, kAllowedBackends);
    if (ours != nullptr && *ours != *value)
      return fail("annotation {}: \"{}\" and annotation {}: \"{}\" ask for different things; give one of them, {}",
                  kBackendAnnotation, *ours, kOldBackendAnnotation, *value, kAllowedBackends);
    ours = value;
  }
  if (ours != nullptr) out.backend = *ours;
  return {};
}

template <class Number>
std::optional<Number> parse_whole(const std::string& text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

std::optional<u64> parse_quantity(const std::string& text) {
  u64 number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  const std::string_view unit{end, static_cast<std::size_t>(text.data() + text.size() - end)};
  static constexpr std::pair<std::string_view, u64> kUnits[] = {
      {"", 1},     {"Ki", 1_KiB},    {"Mi", 1_MiB},        {"Gi", 1_GiB},           {"Ti", 1024_GiB},
      {"k", 1000}, {"M", 1'000'000}, {"G", 1'000'000'000}, {"T", 1'000'000'000'000}};
  const auto* const found = std::ranges::find(kUnits, unit, [](const auto& one) { return one.first; });
  u64 bytes = 0;
  if (found == std::end(kUnits) || __builtin_mul_overflow(number, found->second, &bytes)) return std::nullopt;
  return bytes;
}

PodLimits limits_of(const Annotations& annotations) {
  PodLimits out;
  if (const std::string* const memory = find(annotations, "io.kubernetes.cri.sandbox-memory"))
    if (const auto bytes = parse_whole<u64>(*memory); bytes && *bytes > 0) out.memory = *bytes;
  const std::string* const quota = find(annotations, "io.kubernetes.cri.sandbox-cpu-quota");
  const std::string* const period = find(annotations, "io.kubernetes.cri.sandbox-cpu-period");
  if (quota == nullptr || period == nullptr) return out;
  const auto of = parse_whole<i64>(*quota), in = parse_whole<i64>(*period);
  if (of && in && *of > 0 && *in > 0) out.cpus = static_cast<double>(*of) / static_cast<double>(*in);
  return out;
}

Result<ZoneWish> zone_wish(const Annotations& annotations, const PodLimits& limits) {
  ZoneWish out;
  BH_TRY(read_backend(annotations, out));
  if (const std::string* const engine = find(annotations, kEngineAnnotation)) {
    if (*engine != "auto" && !engine::parse_engine(*engine))
      return refuse(kEngineAnnotation, *engine, "auto, kvm, mshv, xen or dbt");
    out.engine = *engine;
  }
  if (limits.memory) out.memory = std::clamp(*limits.memory, u64{1}, kMaxMemory - kZoneOverhead) + kZoneOverhead;
  if (limits.cpus)
    out.cpus = static_cast<unsigned>(std::clamp(std::ceil(*limits.cpus - kCpuOverhead), 1.0, double{kMaxCpus}));
  if (const std::string* const cpus = find(annotations, kCpusAnnotation)) {
    const auto number = parse_whole<unsigned>(*cpus);
    if (!number || *number < 1 || *number > kMaxCpus)
      return refuse(kCpusAnnotation, *cpus, fmt::format("a whole number from 1 to {}", kMaxCpus));
    out.cpus = *number;
  }
  if (const std::string* const memory = find(annotations, kMemoryAnnotation)) {
    const auto bytes = parse_quantity(*memory);
    if (!bytes || *bytes < kMinMemory || *bytes > kMaxMemory)
      return refuse(kMemoryAnnotation, *memory, "a quantity from 128Mi to 4Ti, as in 512Mi or 2Gi");
    out.memory = *bytes;
  }
  out.memory = (out.memory + 1_MiB - 1) / 1_MiB * 1_MiB;
  return out;
}

}  // namespace bulkhead::container
