// The built-in engine. Options: "dbt.mode" = "translator" (default) or "interpreter"; "dbt.cache" = MiB of translated
// code and its
// descriptions for the whole partition, 4..1024 (default 40 for one vCPU, 24 for each of more).
#pragma once
#include <memory>

#include "engine/engine.h"

namespace bulkhead::engine::dbt {

std::unique_ptr<Engine> make_dbt_engine();

}  // namespace bulkhead::engine::dbt
