// Choosing virt backend and engine for a zone: a pure function of what was asked for and what the host has.
#pragma once
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

// Whether this build can run zones on the engine at all.
bool engine_is_built(EngineKind kind);

// The rule:
// - auto follows the host: pvh where a hardware engine is usable, otherwise pv. Where this build lacks the part that
// the
//   rule names, auto takes pvh on dbt and the reason says so: nothing was asked for that this lowers.
// - pvh asked for by name without an engine needs a hardware engine and never falls back.
// - an engine asked for by name is obeyed or refused, never replaced.
// Errors name what is missing and how to ask for what would work.
Result<EngineChoice> choose(const EngineRequest& request, const HostEngines& host);

}  // namespace bulkhead::engine
