#include "control/engines.h"

#include "engine/dbt/dbt_engine.h"
#include "engine/kvm/kvm_engine.h"

namespace bulkhead::control {

Result<std::unique_ptr<engine::Engine>> make_engine(engine::EngineKind kind) {
  if (kind == engine::EngineKind::kDbt) return engine::dbt::make_dbt_engine();
  if (kind == engine::EngineKind::kKvm) return engine::kvm::make_kvm_engine();
  return fail("this build has no {} engine yet", engine::engine_name(kind));
}

}  // namespace bulkhead::control
