#include "engine/engine.h"

namespace bulkhead::engine {

std::string_view engine_name(EngineKind kind) {
  switch (kind) {
    case EngineKind::kKvm:
      return "kvm";
    case EngineKind::kMshv:
      return "mshv";
    case EngineKind::kXen:
      return "xen";
    case EngineKind::kDbt:
      return "dbt";
  }
  return "unknown";
}

}  // namespace bulkhead::engine
