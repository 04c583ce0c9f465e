#include "engine/choose.h"

#include <algorithm>

namespace bulkhead::engine {
namespace {

constexpr std::array<std::string_view, 4> kBackendNames = {"auto", "pv", "pvh", "hvm"};
constexpr std::array kEngines = {EngineKind::kKvm, EngineKind::kMshv, EngineKind::kXen, EngineKind::kDbt};
constexpr std::array kHardware = {EngineKind::kKvm, EngineKind::kMshv, EngineKind::kXen};
constexpr std::string_view kHowToAskForDbt = "to run a PVH guest under translation, knowingly, use --engine dbt -V pvh";

// The first hardware engine that the host can carry; of these, the first that the build has, if there is one.
const HostEngine* usable_hardware(const HostEngines& host, const Build& build) {
  const HostEngine* found = nullptr;
  for (const EngineKind kind : kHardware) {
    if (!host.of(kind).usable) continue;
    if (build.has(VirtBackend::kPvh, kind)) return &host.of(kind);
    if (found == nullptr) found = &host.of(kind);
  }
  return found;
}

std::string missing_hardware(const HostEngines& host) {
  return fmt::format("{}; {}; {}", host.of(EngineKind::kKvm).reason, host.of(EngineKind::kMshv).reason,
                     host.of(EngineKind::kXen).reason);
}

// Whether the host can carry such a guest on the engine, be it built or not.
bool host_carries(const HostEngine& engine, VirtBackend backend) {
  return backend == VirtBackend::kPv ? engine.carries_pv : engine.usable;
}

// Kernels of pv zones are deprivileged by software; the engines kvm and mshv give the kernel a CPU mode of its own.
bool goes_together(VirtBackend backend, EngineKind engine) {
  return backend != VirtBackend::kPv || engine == EngineKind::kXen || engine == EngineKind::kDbt;
}

// What auto means on a host.
struct Meaning {
  VirtBackend backend;
  std::string why;
};
Meaning meaning_of_auto(const HostEngines& host, const Build& build) {
  const HostEngine* const hardware = usable_hardware(host, build);
  if (hardware == nullptr)
    return {VirtBackend::kPv, fmt::format("auto: no hardware engine is usable on this host ({}), which means pv",
                                          missing_hardware(host))};
  return {VirtBackend::kPvh, fmt::format("auto: the hardware engine {} is usable on this host, which means pvh: {}",
                                         engine_name(hardware->kind), hardware->reason)};
}

// Where this build lacks what auto means: what it has instead, which is something of dbt's. `why` says what is lacking.
Result<EngineChoice> next_best(VirtBackend meant, const std::string& why, const Build& build) {
  for (const VirtBackend backend : {meant, VirtBackend::kPvh, VirtBackend::kPv})
    if (build.has(backend, EngineKind::kDbt))
      return EngineChoice{backend, EngineKind::kDbt, fmt::format("{}, so it is {} on dbt", why, backend_name(backend))};
  return fail("this build has no engine that this host can carry");
}

// ---- an engine by name

Result<EngineChoice> obey(EngineKind kind, VirtBackend backend, std::string why, const HostEngines& host,
                          const Build& build) {
  const std::string_view name = engine_name(kind);
  const HostEngine& engine = host.of(kind);
  if (!host_carries(engine, backend))
    return fail("the engine {} cannot be used {}on this host: {} (`bulkhead host` shows what can)", name,
                engine.carries_pv ? fmt::format("for virt backend {} ", backend_name(backend)) : "", engine.reason);
  if (!build.has(kind))
    return fail("this build has no {} engine yet: use --engine dbt, which runs on every host", name);
  if (!build.has(backend, kind))
    return fail("this build has no virt backend {} on the engine {} yet", backend_name(backend), name);
  return EngineChoice{backend, kind, std::move(why)};
}

Result<EngineChoice> choose_named(const EngineRequest& request, const HostEngines& host, const Build& build) {
  const EngineKind kind = *request.engine;
  const std::string_view name = engine_name(kind);
  if (request.backend != VirtBackend::kAuto) {
    if (!goes_together(request.backend, kind))
      return fail(
          "virt backend pv does not go with the engine {}: it runs on dbt, which every host has, or on a Xen "
          "host; use -V pv alone{}",
          name, host.of(kind).usable ? fmt::format(", or --engine {} -V pvh", name) : "");
    return obey(kind, request.backend,
                fmt::format("virt backend {} on the engine {} was asked for", backend_name(request.backend), name),
                host, build);
  }
  const Meaning meaning = meaning_of_auto(host, build);
  const std::string why = fmt::format("the engine {} was asked for; virt backend {}", name, meaning.why);
  if (!goes_together(meaning.backend, kind)) return obey(kind, VirtBackend::kPvh, {}, host, build);  // is refused
  if (kind == EngineKind::kDbt && !build.has(meaning.backend, kind))
    return next_best(meaning.backend,
                     fmt::format("{}; this build has no {} on dbt yet", why, backend_name(meaning.backend)), build);
  return obey(kind, meaning.backend, why, host, build);
}

// ---- no engine by name

// pvh and hvm: hardware, or nothing.
Result<EngineChoice> choose_hardware(VirtBackend backend, const HostEngines& host, const Build& build) {
  const std::string_view name = backend_name(backend);
  const HostEngine* const hardware = usable_hardware(host, build);
  if (hardware == nullptr)
    return fail("virt backend {} needs hardware virtualization, which this host lacks: {}; {}", name,
                missing_hardware(host), kHowToAskForDbt);
  if (!build.has(backend, hardware->kind))
    return fail(
        "virt backend {} needs a hardware engine; this host can carry {}, but this build has no {} engine yet; {}",
        name, engine_name(hardware->kind), engine_name(hardware->kind), kHowToAskForDbt);
  return EngineChoice{backend, hardware->kind,
                      fmt::format("virt backend {} was asked for; {}", name, hardware->reason)};
}

// Xen's own where this is a Xen host, otherwise ours.
std::optional<EngineKind> engine_for_pv(const HostEngines& host, const Build& build) {
  for (const EngineKind kind : {EngineKind::kXen, EngineKind::kDbt})
    if (host.of(kind).carries_pv && build.has(VirtBackend::kPv, kind)) return kind;
  return std::nullopt;
}

Result<EngineChoice> choose_pv(const HostEngines& host, const Build& build) {
  const auto kind = engine_for_pv(host, build);
  if (!kind) return fail("this build has no virt backend pv on an engine that this host can carry");
  return EngineChoice{VirtBackend::kPv, *kind,
                      fmt::format("virt backend pv was asked for; {}: {}", engine_name(*kind), host.of(*kind).reason)};
}

Result<EngineChoice> choose_auto(const HostEngines& host, const Build& build) {
  const Meaning meaning = meaning_of_auto(host, build);
  if (meaning.backend == VirtBackend::kPv) {
    if (const auto kind = engine_for_pv(host, build))
      return EngineChoice{VirtBackend::kPv, *kind, fmt::format("{} on {}", meaning.why, engine_name(*kind))};
    return next_best(meaning.backend, meaning.why + "; this build has no pv yet", build);
  }
  const EngineKind kind = usable_hardware(host, build)->kind;
  if (build.has(meaning.backend, kind)) return EngineChoice{meaning.backend, kind, meaning.why};
  return next_best(meaning.backend, fmt::format("{}; this build has no {} engine yet", meaning.why, engine_name(kind)),
                   build);
}

}  // namespace

std::string_view backend_name(VirtBackend backend) { return kBackendNames[static_cast<std::size_t>(backend)]; }

std::optional<VirtBackend> parse_backend(std::string_view name) {
  for (std::size_t i = 0; i < kBackendNames.size(); ++i)
    if (kBackendNames[i] == name) return static_cast<VirtBackend>(i);
  return std::nullopt;
}

std::optional<EngineKind> parse_engine(std::string_view name) {
  for (const EngineKind kind : kEngines)
    if (engine_name(kind) == name) return kind;
  return std::nullopt;
}

bool backend_is_built(VirtBackend backend, EngineKind engine) {
  if (engine == EngineKind::kDbt) return backend == VirtBackend::kPvh || backend == VirtBackend::kPv;
  return engine == EngineKind::kKvm && backend == VirtBackend::kPvh;
}

bool engine_is_built(EngineKind engine) { return Build::ours().has(engine); }

bool Build::has(VirtBackend backend) const {
  return std::ranges::any_of(kEngines, [&](EngineKind engine) { return has(backend, engine); });
}

bool Build::has(EngineKind engine) const {
  return std::ranges::any_of(has_, [&](const auto& engines) { return engines[static_cast<std::size_t>(engine)]; });
}

Build Build::ours() {
  Build build;
  for (const VirtBackend backend : {VirtBackend::kPv, VirtBackend::kPvh, VirtBackend::kHvm})
    for (const EngineKind engine : kEngines)
      if (backend_is_built(backend, engine)) build.add(backend, engine);
  return build;
}

Result<EngineChoice> choose(const EngineRequest& request, const HostEngines& host, const Build& build) {
  if (request.backend != VirtBackend::kAuto && !build.has(request.backend))
    return fail("virt backend {} is not built yet: use -V auto, or -V pvh with --engine dbt",
                backend_name(request.backend));
  if (request.engine) return choose_named(request, host, build);
  if (request.backend == VirtBackend::kAuto) return choose_auto(host, build);
  if (request.backend == VirtBackend::kPv) return choose_pv(host, build);
  return choose_hardware(request.backend, host, build);
}

}  // namespace bulkhead::engine
