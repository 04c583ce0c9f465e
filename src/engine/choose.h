// Choosing virt backend and engine for a zone: a pure function of what was asked for, what the host has, and what this
// build has. docs/choosing.md tells the same to users.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "engine/probe.h"

namespace bulkhead::engine {

enum class VirtBackend : u8 { kAuto, kPv, kPvh, kHvm };
std::string_view backend_name(VirtBackend backend);
std::optional<VirtBackend> parse_backend(std::string_view name);
std::optional<EngineKind> parse_engine(std::string_view name);  // not "auto"

struct EngineRequest {
  VirtBackend backend = VirtBackend::kAuto;
  std::optional<EngineKind> engine;  // nothing: auto
};

struct EngineChoice {
  VirtBackend backend;  // never kAuto
  EngineKind engine;
  std::string reason;  // in words: why these two
};

// Which virt backends a build has on which engines.
class Build {
 public:
  constexpr Build& add(VirtBackend backend, EngineKind engine) {
    has_[index(backend)][static_cast<std::size_t>(engine)] = true;
    return *this;
  }
  constexpr bool has(VirtBackend backend, EngineKind engine) const {
    return has_[index(backend)][static_cast<std::size_t>(engine)];
  }
  bool has(VirtBackend backend) const;  // on any engine
  bool has(EngineKind engine) const;    // for any virt backend
  static Build ours();

 private:
  static constexpr std::size_t index(VirtBackend backend) { return static_cast<std::size_t>(backend); }
  std::array<std::array<bool, 4>, 4> has_{};
};

// What this build has: the one place to change when a part is done.
bool backend_is_built(VirtBackend backend, EngineKind engine);
bool engine_is_built(EngineKind engine);  // for any virt backend

// The rule:
// - Virt backend auto follows the host: pvh where a hardware engine is usable, otherwise pv. What is asked of the
//   engine has no part in this: `--engine dbt` runs what the host's auto means, translated.
// - Virt backend pvh without an engine by name needs a hardware engine and never falls back.
// - An engine asked for by name is obeyed or refused, never replaced. Nobody gets a pvh guest under translation who
//   asked for pvh and not for dbt.
// - Virt backend pv runs on a Xen host as Xen's own, and everywhere on dbt.
// - Where this build lacks the part that auto means, auto takes what there is, and the reason says so: nothing was
//   asked for that this lowers.
// Errors: one line that names what is missing and how to ask for what would work.
Result<EngineChoice> choose(const EngineRequest& request, const HostEngines& host, const Build& build = Build::ours());

}  // namespace bulkhead::engine
