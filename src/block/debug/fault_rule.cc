// Fault rules from text.
#include <array>
#include <charconv>
#include <string_view>

#include "block/debug/debug_node.h"
#include "block/throttle/throttle.h"

namespace bulkhead::block {
namespace {

template <class Value>
using Names = std::span<const std::pair<std::string_view, Value>>;

template <class Value>
const Value* find(Names<Value> names, std::string_view name) {
  for (const auto& [one, value] : names)
    if (one == name) return &value;
  return nullptr;
}

constexpr std::pair<std::string_view, RequestKind> kKinds[] = {
    {"read", RequestKind::kRead},       {"write", RequestKind::kWrite},        {"flush", RequestKind::kFlush},
    {"discard", RequestKind::kDiscard}, {"zeroes", RequestKind::kWriteZeroes}, {"any", RequestKind::kCount}};
constexpr std::pair<std::string_view, IoStatus> kStatuses[] = {{"ok", IoStatus::kOk},
                                                               {"eio", IoStatus::kIoError},
                                                               {"enospc", IoStatus::kNoSpace},
                                                               {"erofs", IoStatus::kReadOnly},
                                                               {"unsupported", IoStatus::kUnsupported},
                                                               {"corrupt", IoStatus::kCorrupt}};

Result<Nanoseconds> parse_time(std::string_view text) {
  constexpr std::pair<std::string_view, u64> kUnits[] = {
      {"ns", 1}, {"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000}};
  u64 value = 0;
  const auto [rest, error] = std::from_chars(text.begin(), text.end(), value);
  const u64* const unit = find<u64>(kUnits, std::string_view{rest, text.end()});
  u64 time = 0;
  if (error != std::errc{} || unit == nullptr || __builtin_mul_overflow(value, *unit, &time))
    return fail("'{}' is no time like 5ms", text);
  return time;
}

Result<void> set_field(FaultRule& rule, u64& length, std::string_view key, const std::string& value) {
  if (key == "status") {
    const IoStatus* const status = find<IoStatus>(kStatuses, value);
    if (status == nullptr) return fail("status={}: it is one of ok, eio, enospc, erofs, unsupported, corrupt", value);
    rule.status = *status;
    return {};
  }
  if (key == "delay") {
    BH_ASSIGN(rule.delay, parse_time(value));
    return {};
  }
  if (key == "after") {
    rule.before_child = value != "on";
    return {};
  }
  const std::pair<std::string_view, u64*> numbers[] = {{"offset", &rule.begin},
                                                       {"length", &length},
                                                       {"from", &rule.from},
                                                       {"count", &rule.count},
                                                       {"torn", &rule.torn_bytes}};
  u64* const* const number = find<u64*>(numbers, key);
  if (number == nullptr) return fail("a fault rule has no field '{}'", key);
  BH_ASSIGN(**number, parse_amount(value));
  return {};
}

}  // namespace

Result<FaultRule> DebugNode::parse_rule(const std::string& text) {
  FaultRule rule;
  u64 length = std::numeric_limits<u64>::max();
  std::string_view rest = text;
  for (bool first = true; first || !rest.empty(); first = false) {
    const std::string_view field = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(field.size() + 1, rest.size()));
    if (first) {
      const RequestKind* const kind = find<RequestKind>(kKinds, field);
      if (kind == nullptr)
        return fail("'{}': a fault rule begins with read, write, flush, discard, zeroes or any", text);
      rule.kind = *kind;
      continue;
    }
    const std::size_t equals = field.find('=');
    if (equals == std::string_view::npos) return fail("'{}': it must be NAME=VALUE", field);
    BH_TRY(set_field(rule, length, field.substr(0, equals), std::string{field.substr(equals + 1)}));
  }
  if (length < std::numeric_limits<u64>::max() - rule.begin) rule.end = rule.begin + length;
  return rule;
}

}  // namespace bulkhead::block
