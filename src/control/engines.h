// Which engines this build has.
#pragma once
#include <memory>

#include "engine/engine.h"

namespace bulkhead::control {

// Errors: this build does not have it.
Result<std::unique_ptr<engine::Engine>> make_engine(engine::EngineKind kind);

}  // namespace bulkhead::control
