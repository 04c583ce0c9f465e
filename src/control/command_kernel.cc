#include <nlohmann/json.hpp>

#include "control/commands.h"

namespace bulkhead::control {
namespace {

nlohmann::ordered_json as_json(const zone::StoredKernel& kernel) {
  return {{"release", kernel.release}, {"path", kernel.path}, {"bytes", kernel.bytes}};
}

std::string as_line(const zone::StoredKernel& kernel) {
  return fmt::format("{:<28} {:>5.1f} MiB  {}\n", kernel.release, static_cast<double>(kernel.bytes) / (1 << 20),
                     kernel.path);
}

}  // namespace

int kernel_fetch_command(const KernelFetchCommand& command, Surroundings& around) {
  auto cache = zone::Cache::open();
  if (!cache) return say_failure(cache.error(), around);
  const auto kernel = zone::fetch_kernel(command.request, *cache, around.workshop);
  around.workshop.progress.done();
  if (!kernel) return say_failure(kernel.error(), around);
  print(command.json ? as_json(*kernel).dump(2) + "\n" : as_line(*kernel));
  return 0;
}

int kernel_list_command(const KernelListCommand& command) {
  const auto cache = zone::Cache::open();
  const std::vector<zone::StoredKernel> kernels =
      cache ? zone::list_kernels(*cache) : std::vector<zone::StoredKernel>{};
  if (command.json) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const zone::StoredKernel& kernel : kernels) out.push_back(as_json(kernel));
    print(out.dump(2) + "\n");
    return 0;
  }
  std::string text;
  for (const zone::StoredKernel& kernel : kernels) text += as_line(kernel);
  print(text.empty() ? "no kernels yet: `bulkhead kernel fetch` gets one\n" : text);
  return 0;
}

}  // namespace bulkhead::control
