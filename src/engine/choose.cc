#include "engine/choose.h"

#include <array>

namespace bulkhead::engine {
namespace {

constexpr std::array<std::string_view, 4> kBackendNames = {"auto", "pv", "pvh", "hvm"};
constexpr std::string_view kHowToAskForDbt = "to run a PVH guest under translation, knowingly, use --engine dbt -V pvh";

// The first hardware engine that the host can carry, whether or not it is built.
const HostEngine* usable_hardware(const HostEngines& host) {
  for (const EngineKind kind : {EngineKind::kKvm, EngineKind::kMshv, EngineKind::kXen})
    if (host.of(kind).usable) return &host.of(kind);
  return nullptr;
}

std::string missing_hardware(const HostEngines& host) {
  return fmt::format("{}; {}; {}", host.of(EngineKind::kKvm).reason, host.of(EngineKind::kMshv).reason,
                     host.of(EngineKind::kXen).reason);
}

Result<EngineChoice> choose_named(EngineKind kind, const HostEngines& host) {
  const HostEngine& engine = host.of(kind);
  const std::string_view name = engine_name(kind);
  if (!engine.usable)
    return fail("the engine {} cannot be used on this host: {} (`bulkhead host` shows what can)", name, engine.reason);
  if (!engine_is_built(kind))
    return fail("this build has no {} engine yet: use --engine dbt, which runs on every host", name);
  return EngineChoice{VirtBackend::kPvh, kind, fmt::format("the engine {} was asked for", name)};
}

Result<EngineChoice> choose_pvh(const HostEngines& host) {
  const HostEngine* const hardware = usable_hardware(host);
  if (hardware == nullptr)
    return fail("virt backend pvh needs hardware virtualization, which this host lacks: {}; {}", missing_hardware(host),
                kHowToAskForDbt);
  if (!engine_is_built(hardware->kind))
    return fail("virt backend pvh needs a hardware engine, and this build has no {} engine yet; {}",
                engine_name(hardware->kind), kHowToAskForDbt);
  return EngineChoice{VirtBackend::kPvh, hardware->kind, "pvh was asked for; " + hardware->reason};
}

EngineChoice choose_auto(const HostEngines& host) {
  const HostEngine* const hardware = usable_hardware(host);
  if (hardware == nullptr)
    return {
        VirtBackend::kPvh, EngineKind::kDbt,
        "auto: no hardware engine is usable on this host, which means pv; virt backend pv is not built yet, so it is "
        "pvh on dbt"};
  if (!engine_is_built(hardware->kind))
    return {VirtBackend::kPvh, EngineKind::kDbt,
            fmt::format("auto: {}, which means pvh on {}; this build has no {} engine yet, so it is pvh on dbt",
                        hardware->reason, engine_name(hardware->kind), engine_name(hardware->kind))};
  return {VirtBackend::kPvh, hardware->kind, "auto: " + hardware->reason};
}

}  // namespace

std::string_view backend_name(VirtBackend backend) { return kBackendNames[static_cast<std::size_t>(backend)]; }

std::optional<VirtBackend> parse_backend(std::string_view name) {
  for (std::size_t i = 0; i < kBackendNames.size(); ++i)
    if (kBackendNames[i] == name) return static_cast<VirtBackend>(i);
  return std::nullopt;
}

std::optional<EngineKind> parse_engine(std::string_view name) {
  for (const EngineKind kind : {EngineKind::kKvm, EngineKind::kMshv, EngineKind::kXen, EngineKind::kDbt})
    if (engine_name(kind) == name) return kind;
  return std::nullopt;
}

bool engine_is_built(EngineKind kind) { return kind == EngineKind::kDbt; }

Result<EngineChoice> choose(const EngineRequest& request, const HostEngines& host) {
  if (request.backend == VirtBackend::kPv || request.backend == VirtBackend::kHvm)
    return fail("virt backend {} is not built yet: use -V auto, or -V pvh with --engine dbt",
                backend_name(request.backend));
  if (request.engine) return choose_named(*request.engine, host);
  if (request.backend == VirtBackend::kPvh) return choose_pvh(host);
  return choose_auto(host);
}

}  // namespace bulkhead::engine
