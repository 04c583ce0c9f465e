#include "engine/dbt/dbt_engine.h"

#include <cpuid.h>
#include <sys/mman.h>

#include <charconv>

#include "engine/dbt/partition.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr unsigned kMaxVcpus = 8;  // one bit of a page's code mask for each
constexpr u64 kMinCacheMib = 4, kMaxCacheMib = 1024;

bool host_has_xsave() {
  u32 eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_OSXSAVE) != 0;
}

bool host_lets_us_generate_code() {
  void* const page = ::mmap(nullptr, kPageSize, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  ::munmap(page, kPageSize);
  return true;
}

Result<u64> parse_cache_mib(std::string_view text) {
  u64 mib = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mib);
  if (error != std::errc{} || end != text.data() + text.size() || mib < kMinCacheMib || mib > kMaxCacheMib)
    return fail("engine option dbt.cache is '{}'; it is a number of MiB from {} to {}", text, kMinCacheMib,
                kMaxCacheMib);
  return mib;
}

Result<DbtOptions> parse(const PartitionConfig& config) {
  DbtOptions options;
  for (const auto& [name, value] : config.options) {
    if (name == "dbt.mode" && value == "translator") {
      options.mode = DbtVcpu::Mode::kTranslator;
    } else if (name == "dbt.mode" && value == "interpreter") {
      options.mode = DbtVcpu::Mode::kInterpreter;
    } else if (name == "dbt.mode") {
      return fail("engine option dbt.mode is '{}'; it is translator or interpreter", value);
    } else if (name == "dbt.cache") {
      BH_ASSIGN(const u64 mib, parse_cache_mib(value));
      options.cache_bytes = mib << 20;
    } else if (name == "dbt.perf_map") {
      BH_ASSIGN(options.perf_map, PerfMap::create(value));
    } else {
      return fail("engine dbt does not know the option '{}'; it knows dbt.mode, dbt.cache and dbt.perf_map", name);
    }
  }
  return options;
}

class DbtEngine final : public Engine {
 public:
  Probe probe() const override {
    Probe probe{.kind = EngineKind::kDbt,
                .usable = false,
                .reason = {},
                .capabilities = {.max_vcpus = kMaxVcpus, .lapic_in_engine = true, .dirty_log = false}};
    if (!host_has_xsave())
      probe.reason =
          "the host's CPU or kernel has no XSAVE; use a host CPU made after 2010 and a kernel without noxsave";
    else if (!host_lets_us_generate_code())
      probe.reason = "the host forbids executable memory; allow it (SELinux: execmem) or use another engine";
    probe.usable = probe.reason.empty();
    return probe;
  }

  Result<std::unique_ptr<Partition>> create(const PartitionConfig& config, GuestMemory& memory) override {
    if (config.vcpus < 1 || config.vcpus > kMaxVcpus)
      return fail("engine dbt runs 1 to {} vCPUs; {} were asked for", kMaxVcpus, config.vcpus);
    if (config.abi == ParavirtAbi::kKvm)
      return fail("the engine dbt has no part of KVM's guest ABI: use --abi xen or --abi none, or the engine kvm");
    if (config.cpu_model.leaves.empty()) return fail("engine dbt needs a CPU model; none was given");
    BH_ASSIGN(DbtOptions options, parse(config));
    return DbtPartition::create(config, memory, std::move(options));
  }
};

}  // namespace

std::unique_ptr<Engine> make_dbt_engine() { return std::make_unique<DbtEngine>(); }

}  // namespace bulkhead::engine::dbt
