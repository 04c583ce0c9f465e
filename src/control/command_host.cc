#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "control/commands.h"
#include "engine/cpu_model.h"
#include "engine/probe.h"

namespace bulkhead::control {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kBackends = {engine::VirtBackend::kPv, engine::VirtBackend::kPvh, engine::VirtBackend::kHvm};

std::string state(const engine::HostEngine& engine) {
  if (!engine.usable) return "not usable";
  return engine::engine_is_built(engine.kind) ? "usable" : "usable by the host, but this build has no such engine yet";
}

std::vector<std::string_view> engines_with(engine::VirtBackend backend, const engine::HostEngines& host) {
  std::vector<std::string_view> out;
  for (const engine::HostEngine& engine : host.all)
    if (engine::backend_is_built(backend, engine.kind)) out.push_back(engine::engine_name(engine.kind));
  return out;
}

Json as_json(const engine::HostEngines& host, const Result<engine::EngineChoice>& choice) {
  Json out;
  for (const engine::HostEngine& engine : host.all)
    out["engines"].push_back({{"name", engine::engine_name(engine.kind)},
                              {"usable", engine.usable},
                              {"built", engine::engine_is_built(engine.kind)},
                              {"reason", engine.reason}});
  for (const engine::VirtBackend backend : kBackends)
    out["virt_backends"].push_back(
        {{"name", engine::backend_name(backend)}, {"built_on", engines_with(backend, host)}});
  if (choice)
    out["auto"] = {{"virt_backend", engine::backend_name(choice->backend)},
                   {"engine", engine::engine_name(choice->engine)},
                   {"reason", choice->reason}};
  for (const std::string_view name : engine::cpu_model_names()) out["cpu_models"].push_back(name);
  return out;
}

}  // namespace

int host_command(const HostCommand& command) {
  const engine::HostEngines host = engine::probe_host();
  const auto choice = engine::choose({}, host);
  if (command.json) {
    print(as_json(host, choice).dump(2) + "\n");
    return 0;
  }
  std::string text = "engines\n";
  for (const engine::HostEngine& engine : host.all)
    text += fmt::format("  {:<5} {}: {}\n", engine::engine_name(engine.kind), state(engine), engine.reason);
  text += "virt backends\n";
  for (const engine::VirtBackend backend : kBackends) {
    const auto engines = engines_with(backend, host);
    text += fmt::format("  {:<5} {}\n", engine::backend_name(backend),
                        engines.empty() ? "not built yet" : fmt::format("on {}", fmt::join(engines, ", ")));
  }
  if (choice)
    text += fmt::format("auto means here\n  {} on {}\n  {}\n", engine::backend_name(choice->backend),
                        engine::engine_name(choice->engine), choice->reason);
  text += "CPU models\n ";
  for (const std::string_view name : engine::cpu_model_names()) text += fmt::format(" {}", name);
  print(text + "\n");
  return 0;
}

}  // namespace bulkhead::control
