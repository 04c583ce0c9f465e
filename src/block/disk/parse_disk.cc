#include <algorithm>
#include <span>

#include "block/disk/open_disk.h"

namespace bulkhead::block {
namespace {

template <class Value>
struct Choice {
  std::string_view name;
  Value value;
};

template <class Value, std::size_t n>
Result<Value> choose(std::string_view key, std::string_view value, const Choice<Value> (&choices)[n]) {
  std::string names;
  for (const Choice<Value>& choice : choices) {
    if (choice.name == value) return choice.value;
    names += (names.empty() ? "" : ", ") + std::string{choice.name};
  }
  return fail("{}={}: it is one of {}", key, value, names);
}

struct CacheChoice {
  CacheMode mode;
  bool direct;
};
constexpr Choice<CacheChoice> kCaches[] = {{"writeback", {CacheMode::kWriteBack, false}},
                                           {"none", {CacheMode::kWriteBack, true}},
                                           {"writethrough", {CacheMode::kWriteThrough, false}},
                                           {"directsync", {CacheMode::kWriteThrough, true}},
                                           {"unsafe", {CacheMode::kUnsafe, false}}};
constexpr Choice<bool> kOnOff[] = {{"on", true}, {"off", false}};
constexpr Choice<bool> kDiscards[] = {{"unmap", true}, {"on", true}, {"ignore", false}, {"off", false}};
constexpr Choice<IoEngineKind> kEngines[] = {
    {"auto", IoEngineKind::kAuto}, {"io_uring", IoEngineKind::kUring}, {"threads", IoEngineKind::kThreads}};
constexpr Choice<ErrorAction> kWriteErrors[] = {{"report", ErrorAction::kReport},
                                                {"ignore", ErrorAction::kIgnore},
                                                {"enospc", ErrorAction::kWaitNoSpace},
                                                {"stop", ErrorAction::kWait}};
constexpr Choice<ErrorAction> kReadErrors[] = {
    {"report", ErrorAction::kReport}, {"ignore", ErrorAction::kIgnore}, {"stop", ErrorAction::kWait}};
constexpr Choice<BucketLimit ThrottleLimits::*> kLimits[] = {
    {"bps", &ThrottleLimits::bytes}, {"bps-rd", &ThrottleLimits::read_bytes}, {"bps-wr", &ThrottleLimits::write_bytes},
    {"iops", &ThrottleLimits::ops},  {"iops-rd", &ThrottleLimits::read_ops},  {"iops-wr", &ThrottleLimits::write_ops}};

// False: no such key.
Result<bool> set_limit(ThrottleLimits& limits, std::string_view key, const std::string& value) {
  constexpr std::string_view kBurst = "-burst";
  const bool burst = key.ends_with(kBurst);
  const std::string_view name = burst ? key.substr(0, key.size() - kBurst.size()) : key;
  const auto* const limit = std::ranges::find(kLimits, name, &Choice<BucketLimit ThrottleLimits::*>::name);
  if (limit == std::end(kLimits)) return false;
  BH_ASSIGN(const u64 amount, parse_amount(value));
  BucketLimit& bucket = limits.*limit->value;
  (burst ? bucket.burst : bucket.per_second) = amount;
  return true;
}

Result<void> set_cache(DiskConfig& config, std::string_view value) {
  BH_ASSIGN(const CacheChoice cache, choose("cache", value, kCaches));
  config.options.cache = cache.mode;
  config.direct = cache.direct;
  return {};
}

Result<void> set_key(DiskConfig& config, std::string_view key, const std::string& value) {
  if (key == "cache") return set_cache(config, value);
  if (key == "format") {
    config.format = value;
  } else if (key == "key-file") {
    config.key_file = value;
  } else if (key == "backing.key-file") {
    config.backing_key_file = value;
  } else if (key == "serial") {
    config.options.serial = value;
  } else if (key == "direct") {
    BH_ASSIGN(config.direct, choose(key, value, kOnOff));
  } else if (key == "discard") {
    BH_ASSIGN(config.discard, choose(key, value, kDiscards));
  } else if (key == "aio") {
    BH_ASSIGN(config.engine, choose(key, value, kEngines));
  } else if (key == "werror") {
    BH_ASSIGN(config.options.on_write_error, choose(key, value, kWriteErrors));
  } else if (key == "rerror") {
    BH_ASSIGN(config.options.on_read_error, choose(key, value, kReadErrors));
  } else {
    BH_ASSIGN(const bool known, set_limit(config.options.limits, key, value));
    if (!known) return fail("a disk has no option '{}'", key);
  }
  return {};
}

Result<void> judge(const ThrottleLimits& limits) {
  for (const auto& limit : kLimits) {
    const BucketLimit& bucket = limits.*limit.value;
    if (bucket.burst != 0 && bucket.per_second == 0)
      return fail("{}-burst= needs {}= beside it", limit.name, limit.name);
  }
  return {};
}

}  // namespace

Result<void> parse_disk_options(DiskConfig& config, std::string_view rest) {
  while (!rest.empty()) {
    const std::string_view field = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(field.size() + 1, rest.size()));
    const std::size_t equals = field.find('=');
    if (field == "ro" || field == "readonly") {
      config.read_only = true;
    } else if (equals == std::string_view::npos) {
      return fail("'{}': it must be ro, or NAME=VALUE", field);
    } else {
      BH_TRY(set_key(config, field.substr(0, equals), std::string{field.substr(equals + 1)}));
    }
  }
  return judge(config.options.limits);
}

Result<DiskConfig> parse_disk(const std::string& text) {
  DiskConfig config;
  config.path = text.substr(0, text.find(','));
  if (config.path.empty()) return fail("'{}': it must begin with a file", text);
  BH_TRY(parse_disk_options(config, std::string_view{text}.substr(std::min(config.path.size() + 1, text.size()))));
  return config;
}

Result<ThrottleLimits> parse_limits(const std::string& text) {
  DiskConfig config;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view field = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(field.size() + 1, rest.size()));
    const std::size_t equals = std::min(field.find('='), field.size());
    const std::string value{equals == field.size() ? "" : field.substr(equals + 1)};
    BH_ASSIGN(const bool known, set_limit(config.options.limits, field.substr(0, equals), value));
    if (!known) return fail("'{}' is no limit; they are bps=, bps-rd=, bps-wr=, iops=, iops-rd=, iops-wr=", field);
  }
  BH_TRY(judge(config.options.limits));
  return config.options.limits;
}

}  // namespace bulkhead::block
