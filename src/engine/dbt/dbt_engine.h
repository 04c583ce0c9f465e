// The built-in engine. Options: "dbt.mode" = "translator" (default) or "interpreter"; "dbt.cache" = MiB of translated
// code for the whole partition, 4..1024.
#pragma once
#include <memory>

#include "engine/engine.h"

namespace bulkhead::engine::dbt {

std::unique_ptr<Engine> make_dbt_engine();

}  // namespace bulkhead::engine::dbt
