#include "engine/dbt/cache/perf_map.h"

#include <cerrno>
#include <cstring>

namespace bulkhead::engine::dbt {

Result<std::unique_ptr<PerfMap>> PerfMap::create(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "wbe");
  if (file == nullptr) return fail("engine option dbt.perf_map: cannot make {}: {}", path, std::strerror(errno));
  return std::unique_ptr<PerfMap>{new PerfMap{file}};
}

PerfMap::~PerfMap() { std::fclose(file_); }

void PerfMap::add(const u8* code, u64 size, u64 rip, bool user) {
  std::fprintf(file_, "%lx %lx guest-%s:%lx\n", reinterpret_cast<u64>(code), size, user ? "user" : "kernel", rip);
}

}  // namespace bulkhead::engine::dbt
