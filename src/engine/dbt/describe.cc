// A vCPU in words, for a failure report.
#include "engine/describe.h"

#include "engine/dbt/vcpu.h"

namespace bulkhead::engine::dbt {

// Reads the code through the page tables without setting a bit in them.
std::string DbtVcpu::describe() {
  return describe_state(state(), [this](u64 linear) -> std::optional<u8> {
    const auto translation = cpu_.walk(linear, Access::kExecute, cpu_.s.cpl == 3, true);
    const std::byte* const page = translation.ok ? cpu_.shared.ram(translation.gpa) : nullptr;
    if (page == nullptr) return std::nullopt;
    return std::to_integer<u8>(page[translation.gpa & (kPageSize - 1)]);
  });
}

}  // namespace bulkhead::engine::dbt
