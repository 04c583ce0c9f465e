#include "tests/engine/engines.h"

#include "engine/dbt/dbt_engine.h"

namespace bulkhead::engine {

const std::vector<EngineUnderTest>& engines_under_test() {
  static const std::vector<EngineUnderTest> engines = {
      {"dbt_interpreter", dbt::make_dbt_engine, {{"dbt.mode", "interpreter"}}},
      {"dbt_translator", dbt::make_dbt_engine, {{"dbt.mode", "translator"}}},
  };
  return engines;
}

}  // namespace bulkhead::engine
