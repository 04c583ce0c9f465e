// One zone that runs one command, from nothing to its exit status.
#pragma once
#include <string>
#include <vector>

#include "engine/engine.h"
#include "zone/report.h"
#include "zone/store/cache.h"
#include "zone/zone_spec.h"

namespace bulkhead::zone {

struct ZoneEnd {
  int exit_status = 125;
  std::string error;                       // one line; empty when all went as it should
  std::vector<std::string> console_lines;  // the guest's last ones, when they would help; printable
};

// Blocks until the zone is gone. `workshop.signals` must be there. Fills `report` as far as it comes, also on errors.
// Errors: the zone could not be put together; nothing ran.
Result<ZoneEnd> run_zone(const ZoneSpec& spec, engine::Engine& engine, Cache& cache, Workshop& workshop,
                         Report& report);

// A bare kernel with its consoles on our stdio; the same rules.
Result<ZoneEnd> boot_zone(const BootSpec& spec, engine::Engine& engine, Cache& cache, Workshop& workshop,
                          Report& report);

// The environment a command gets: PATH, HOME, TERM (with a terminal), then `extra` in order, the last of a name wins.
std::vector<std::string> command_environment(const std::vector<std::string>& extra, const char* term);

}  // namespace bulkhead::zone
