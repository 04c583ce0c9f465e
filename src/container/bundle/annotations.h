// What a pod asks of its zone by annotations, and how large its limits make it. docs/containers.md tells the same to
// users.
#pragma once
#include <map>
#include <optional>
#include <string>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::container {

using Annotations = std::map<std::string, std::string>;

inline constexpr char kOldBackendAnnotation[] = "dev.edera/virt-backend";
inline constexpr char kBackendAnnotation[] = "bulkhead.dev/virt-backend";
inline constexpr char kEngineAnnotation[] = "bulkhead.dev/engine";
inline constexpr char kCpusAnnotation[] = "bulkhead.dev/cpus";
inline constexpr char kMemoryAnnotation[] = "bulkhead.dev/memory";

inline constexpr unsigned kMaxCpus = 8;  // as machines have it
inline constexpr u64 kMinMemory = 128_MiB, kMaxMemory = 4096_GiB;
inline constexpr u64 kDefaultMemory = 512_MiB;
// What the zone's own kernel and agents take of its memory; comes on top of what the containers may use.
inline constexpr u64 kZoneOverhead = 128_MiB;

// Limits of a pod, as far as anybody said.
struct PodLimits {
  std::optional<u64> memory;  // bytes
  std::optional<double> cpus;
};

struct ZoneWish {
  std::string backend = "auto", engine = "auto";  // names that engine/choose knows
  unsigned cpus = 1;
  u64 memory = kDefaultMemory;
};

// Annotations go before limits. Errors: name the annotation, its value and what is allowed.
Result<ZoneWish> zone_wish(const Annotations& annotations, const PodLimits& limits);
// What newer versions of containerd say of the sandbox's limits.
PodLimits limits_of(const Annotations& annotations);
// "512Mi", "2G", "1073741824": as Kubernetes writes quantities. Nothing: none.
std::optional<u64> parse_quantity(const std::string& text);

}  // namespace bulkhead::container
