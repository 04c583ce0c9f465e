#include "control/engines.h"

#include "engine/dbt/dbt_engine.h"

namespace bulkhead::control {

Result<std::unique_ptr<engine::Engine>> make_engine(engine::EngineKind kind) {
  if (kind != engine::EngineKind::kDbt) return fail("this build has no {} engine yet", engine::engine_name(kind));
  return engine::dbt::make_dbt_engine();
}

}  // namespace bulkhead::control
