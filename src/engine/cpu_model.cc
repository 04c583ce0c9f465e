// How the models are made. A portable model is one GenuineIntel CPU, whatever the host is: for it a Linux guest takes
// the TSC's rate from CPUID 0x15 instead of measuring it against a PIT, and ARCH_CAPABILITIES can tell it that it needs
// neither page table isolation nor retpolines. (Under translation they would protect nothing: guest kernel and guest
// user run in one host process, whose border is the zone's.) `host` keeps the host's vendor, family and model, and
// tells the same in its vendor's way.
#include "engine/cpu_model.h"

#include <cpuid.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <numeric>

#include "base/bits.h"
#include "base/sync.h"
#include "engine/cpu_features.h"
#include "engine/host_tsc.h"

namespace bulkhead::engine {
namespace {

constexpr u64 kXcr0Known = 0xe7;  // x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM
constexpr u64 kXcr0Avx = 4, kXcr0Avx512 = 0xe0;
constexpr u32 kPhysicalBits = 40, kLinearBits = 48;
constexpr u32 kLapicBusKhz = 1'000'000;

struct Named {
  std::string_view name;
  Level level;
};
constexpr std::array kModels = {Named{"host", Level::kHost}, Named{"x86-64-v4", Level::kV4},
                                Named{"x86-64-v3", Level::kV3}, Named{"x86-64-v2", Level::kV2}};

CpuidLeaf ask_host(u32 leaf, u32 subleaf) {
  CpuidLeaf out{leaf, subleaf};
  if (leaf > __get_cpuid_max(leaf & 0x80000000, nullptr)) return out;
  __cpuid_count(leaf, subleaf, out.eax, out.ebx, out.ecx, out.edx);
  return out;
}

// Remembered: where we are a guest ourselves each CPUID costs tens of microseconds.
CpuidLeaf host_cpuid(u32 leaf, u32 subleaf = 0) {
  static Mutex mutex;
  static std::map<std::pair<u32, u32>, CpuidLeaf> known;
  Lock lock{mutex};
  const auto [entry, fresh] = known.try_emplace({leaf, subleaf});
  if (fresh) entry->second = ask_host(leaf, subleaf);
  return entry->second;
}

u32 CpuidLeaf::* member(char reg) {
  switch (reg) {
    case 'a':
      return &CpuidLeaf::eax;
    case 'b':
      return &CpuidLeaf::ebx;
    case 'c':
      return &CpuidLeaf::ecx;
    default:
      return &CpuidLeaf::edx;
  }
}

u64 host_xcr0() {
  if (!bit(host_cpuid(1).ecx, 27)) return 3;  // the host's kernel does not use XSAVE
  u32 low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low | u64{high} << 32) & kXcr0Known;
}

// The host has the feature, and its kernel switches the registers that it needs.
bool host_has(const FeatureBit& feature) {
  if (!bit(host_cpuid(feature.leaf, feature.subleaf).*member(feature.reg), feature.bit)) return false;
  const u64 xcr0 = host_xcr0();
  if (feature.name.starts_with("avx512")) return (xcr0 & kXcr0Avx512) == kXcr0Avx512;
  for (const std::string_view name : {"avx", "avx2", "fma", "f16c", "avx_vnni", "vaes", "vpclmulqdq"})
    if (feature.name == name) return (xcr0 & kXcr0Avx) != 0;
  return feature.name != "xsave" || bit(host_cpuid(1).ecx, 27);
}

bool host_is_amd() {
  const u32 ebx = host_cpuid(0).ebx;
  return ebx == signature_AMD_ebx || ebx == 0x6f677948;  // "Auth", "Hygo"
}

u32 word_of(std::string_view text, unsigned index) {
  u32 out = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned at = index * 4 + i;
    if (at < text.size()) out |= u32{static_cast<u8>(text[at])} << (8 * i);
  }
  return out;
}

class Builder {
 public:
  Builder(const Named& named, unsigned vcpus) : named_{named}, vcpus_{vcpus}, amd_{is_host() && host_is_amd()} {}
  CpuModel build();

 private:
  bool is_host() const { return named_.level == Level::kHost; }
  unsigned id_bits() const { return static_cast<unsigned>(std::bit_width(vcpus_ - 1)); }
  CpuidLeaf& at(u32 leaf, u32 subleaf = 0) {
    return leaves_.try_emplace({leaf, subleaf}, CpuidLeaf{leaf, subleaf}).first->second;
  }
  void identity();
  void brand();
  void features();
  void speculation();
  void topology();
  void caches_intel();
  void caches_amd();
  void xsave();
  void clocks();

  Named named_;
  u32 vcpus_;
  bool amd_;
  u64 xcr0_ = 3;
  std::map<std::pair<u32, u32>, CpuidLeaf> leaves_;
};

void Builder::identity() {
  const CpuidLeaf zero = host_cpuid(0);
  CpuidLeaf& basic = at(0);
  basic.eax = amd_ ? 0xd : 0x16;
  basic.ebx = is_host() ? zero.ebx : u32{signature_INTEL_ebx};
  basic.ecx = is_host() ? zero.ecx : u32{signature_INTEL_ecx};
  basic.edx = is_host() ? zero.edx : u32{signature_INTEL_edx};
  at(1).eax =
      is_host() ? host_cpuid(1).eax : 0x000806f8;  // Sapphire Rapids: on no list of CPUs with flaws to work around
  at(1).ebx = 8u << 8;                             // CLFLUSH line, in 8 bytes
  CpuidLeaf& extended = at(0x80000000);
  extended.eax = amd_ ? 0x80000021 : 0x80000008;
  if (amd_) extended.ebx = zero.ebx, extended.ecx = zero.ecx, extended.edx = zero.edx;
  CpuidLeaf& hypervisor = at(0x40000000);
  hypervisor.eax = 0x40000010;
  hypervisor.ebx = word_of("BulkheadZone", 0);  // promises no hypercalls: guests ignore who they do not know
  hypervisor.ecx = word_of("BulkheadZone", 1);
  hypervisor.edx = word_of("BulkheadZone", 2);
  brand();
}

void Builder::brand() {
  const std::string text = fmt::format("Bulkhead {} vCPU", named_.name);
  for (u32 i = 0; i < 3; ++i) {
    CpuidLeaf& leaf = at(0x80000002 + i);
    if (is_host()) {
      leaf = host_cpuid(leaf.leaf);
      continue;
    }
    leaf.eax = word_of(text, i * 4), leaf.ebx = word_of(text, i * 4 + 1);
    leaf.ecx = word_of(text, i * 4 + 2), leaf.edx = word_of(text, i * 4 + 3);
  }
}

void Builder::features() {
  for (const FeatureBit& feature : feature_bits()) {
    if (feature.level > named_.level) continue;
    if (feature.provider == Provider::kHost && !host_has(feature)) continue;
    at(feature.leaf, feature.subleaf).*member(feature.reg) |= 1u << feature.bit;
  }
  if (bit(at(7, 1).eax, 4) || bit(at(7, 1).eax, 5)) at(7).eax = 1;
  if (!amd_) return;
  at(0x80000001).eax = at(1).eax;
  at(0x80000001).edx |= at(1).edx & 0x0183f3ff;  // AMD repeats leaf 1 there
}

// What tells a guest that it needs no work-arounds; see the head of this file. ARCH_CAPABILITIES itself is an MSR, the
// engine's.
void Builder::speculation() {
  if (!amd_) {
    at(7).edx |= 1u << 26 | 1u << 29;  // IBRS/IBPB, ARCH_CAPABILITIES
    at(7, 2).edx |= 1u << 4;           // BHI_CTRL: else Linux clears the branch history by a loop in every system call
    at(7).eax = 2;
    return;
  }
  at(0x80000008).ebx |= 1u << 12 | 1u << 26 | 1u << 29;  // IBPB, SSB_NO, BTC_NO
  at(0x80000021).eax |= 1u << 2 | 1u << 6 | 1u << 8;     // LFENCE serializes, null selector clears base, AutoIBRS
  at(0x80000021).eax |= 1u << 29 | 1u << 30;             // SRSO_NO, SRSO_USER_KERNEL_NO
  at(0x80000021).ecx |= 1u << 1 | 1u << 2;               // TSA_SQ_NO, TSA_L1_NO
}

// One socket, a core for each vCPU, one thread in each.
void Builder::topology() {
  at(1).ebx |= vcpus_ << 16;
  if (vcpus_ > 1) at(1).edx |= 1u << 28;
  CpuidLeaf& thread = at(0xb, 0);
  thread.ebx = 1, thread.ecx = 1u << 8;
  CpuidLeaf& core = at(0xb, 1);
  core.eax = id_bits(), core.ebx = vcpus_, core.ecx = 1 | 2u << 8;
  at(0xb, 2).ecx = 2;
  at(0x80000008).eax = kLinearBits << 8 | kPhysicalBits;
  if (!amd_) return caches_intel();
  at(0x80000008).ecx = (vcpus_ - 1) | id_bits() << 12;
  at(0x80000001).ecx |= 1u << 22;                 // TOPOEXT
  if (vcpus_ > 1) at(0x80000001).ecx |= 1u << 1;  // CMP_LEGACY
  at(0x8000001e);
  caches_amd();
}

// A line of leaf 4 or 0x8000001d; `sharing` is vCPUs per cache, rounded up to a power of two.
struct Cache {
  u32 type, level, sharing, ways, sets;
};
CpuidLeaf cache_leaf(u32 leaf, u32 subleaf, const Cache& cache) {
  constexpr u32 kLine = 64;
  return {leaf,
          subleaf,
          cache.type | cache.level << 5 | 1u << 8 | (cache.sharing - 1) << 14,
          (kLine - 1) | (cache.ways - 1) << 22,
          cache.sets - 1,
          0};
}

void Builder::caches_intel() {
  const u32 all = 1u << id_bits();
  at(2) = {2, 0, 0x00feff01, 0xf0, 0, 0};  // "see leaf 4", TLBs general, 64-byte prefetch
  const Cache caches[] = {{1, 1, 1, 12, 64}, {2, 1, 1, 8, 64}, {3, 2, 1, 16, 2048}, {3, 3, all, 16, 32768}};
  u32 subleaf = 0;
  for (const Cache& cache : caches) {
    CpuidLeaf& leaf = at(4, subleaf) = cache_leaf(4, subleaf, cache);
    leaf.eax |= (all - 1) << 26;
    ++subleaf;
  }
}

void Builder::caches_amd() {
  const u32 all = 1u << id_bits();
  at(0x80000005) = host_cpuid(0x80000005);
  at(0x80000006) = host_cpuid(0x80000006);
  for (u32 subleaf = 0; subleaf < 4; ++subleaf) {
    const CpuidLeaf real = host_cpuid(0x8000001d, subleaf);
    if ((real.eax & 0x1f) == 0) break;
    const u32 level = (real.eax >> 5) & 7;
    CpuidLeaf& leaf = at(0x8000001d, subleaf) = real;
    leaf.eax = (real.eax & 0x3fff) | ((level >= 3 ? all : 1) - 1) << 14;
  }
}

// Sizes and offsets are the host's: its XSAVE writes the guest's image.
void Builder::xsave() {
  if (!bit(at(1).ecx, 26)) return;
  xcr0_ = host_xcr0();
  if (!bit(at(1).ecx, 28)) xcr0_ &= 3;
  if (!bit(at(7).ebx, 16)) xcr0_ &= ~kXcr0Avx512;
  u32 size = 576;
  for (u32 i = 2; i < 8; ++i) {
    if (!bit(xcr0_, i)) continue;
    const CpuidLeaf real = host_cpuid(0xd, i);
    at(0xd, i) = {0xd, i, real.eax, real.ebx, real.ecx & 2, 0};
    size = std::max(size, real.eax + real.ebx);
  }
  at(0xd, 0) = {0xd, 0, static_cast<u32>(xcr0_), 576, size, 0};
}

// The best fraction numerator/denominator for a/b with both below `limit`: continued fractions.
std::pair<u32, u32> best_ratio(u64 a, u64 b, u64 limit) {
  u64 p0 = 0, q0 = 1, p1 = 1, q1 = 0;
  while (b != 0) {
    const u64 whole = a / b;
    const u64 p2 = whole * p1 + p0, q2 = whole * q1 + q0;
    if (p2 >= limit || q2 >= limit) break;
    p0 = p1, q0 = q1, p1 = p2, q1 = q2;
    a = std::exchange(b, a % b);
  }
  return {static_cast<u32>(p1), static_cast<u32>(q1)};
}

// Linux multiplies the crystal's kHz by the numerator in 32 bits, and takes the crystal for the LAPIC's bus clock. So
// the crystal is that clock, 1 GHz, and the numerator stays below 4294.
void Builder::clocks() {
  const auto khz = static_cast<u32>(host_tsc_hz() / 1000);
  at(0x40000010) = {0x40000010, 0, khz, kLapicBusKhz, 0, 0};
  if (amd_) return;
  const auto [numerator, denominator] = best_ratio(host_tsc_hz(), u64{kLapicBusKhz} * 1000, 4294);
  at(0x15) = {0x15, 0, denominator, numerator, kLapicBusKhz * 1000, 0};
  at(0x16) = {0x16, 0, khz / 1000, khz / 1000, 100, 0};
}

CpuModel Builder::build() {
  identity();
  features();
  speculation();
  topology();
  xsave();
  clocks();
  CpuModel model{.name = std::string{named_.name}, .leaves = {}, .xcr0_mask = xcr0_, .tsc_hz = host_tsc_hz()};
  for (const auto& [key, leaf] : leaves_) model.leaves.push_back(leaf);
  return model;
}

std::vector<std::string_view> missing_features(Level level) {
  std::vector<std::string_view> missing;
  for (const FeatureBit& feature : feature_bits())
    if (feature.provider == Provider::kHost && feature.level <= level && !host_has(feature))
      missing.push_back(feature.name);
  return missing;
}

std::vector<std::string_view> usable_models() {
  std::vector<std::string_view> names;
  for (const Named& named : kModels)
    if (named.level == Level::kHost || missing_features(named.level).empty()) names.push_back(named.name);
  return names;
}

constexpr bool has_subleaves(u32 leaf) {
  return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x8000001d;
}

const CpuidLeaf* find(const CpuModel& model, u32 leaf, u32 subleaf) {
  const u32 wanted = has_subleaves(leaf) ? subleaf : 0;
  const auto key = std::pair{leaf, wanted};
  const auto found = std::ranges::lower_bound(
      model.leaves, key, {}, [](const CpuidLeaf& entry) { return std::pair{entry.leaf, entry.subleaf}; });
  return found != model.leaves.end() && found->leaf == leaf && found->subleaf == wanted ? &*found : nullptr;
}
}  // namespace

CpuidLeaf CpuModel::lookup(u32 leaf, u32 subleaf) const {
  if (const CpuidLeaf* entry = find(*this, leaf, subleaf)) return *entry;
  // Leaf 0xb names no level beyond the last, but repeats the subleaf's number [SDM-2A CPUID].
  if (leaf == 0xb) return {leaf, subleaf, 0, 0, subleaf & 0xff, 0};
  const u32 group = leaf & 0xc0000000;
  const CpuidLeaf* head = find(*this, group, 0);
  const CpuidLeaf* basic = find(*this, 0, 0);
  const bool intel = basic != nullptr && basic->ebx == u32{signature_INTEL_ebx};
  const bool out_of_range = head == nullptr || leaf > head->eax;
  if (intel && out_of_range && group != 0x40000000 && leaf != basic->eax) return lookup(basic->eax, subleaf);
  return {leaf, subleaf, 0, 0, 0, 0};
}

bool CpuModel::has(u32 leaf, u32 subleaf, char reg, unsigned index) const {
  const CpuidLeaf* entry = find(*this, leaf, subleaf);
  return entry != nullptr && index < 32 && bit(entry->*member(reg), index);
}

std::vector<std::string_view> cpu_model_names() {
  std::vector<std::string_view> names;
  for (const Named& named : kModels) names.push_back(named.name);
  return names;
}

Result<CpuModel> make_cpu_model(std::string_view name, unsigned vcpus) {
  const auto named = std::ranges::find(kModels, name, &Named::name);
  if (named == kModels.end())
    return fail("CPU model '{}' is not known; the models are {}", name, fmt::join(cpu_model_names(), ", "));
  if (vcpus < 1 || vcpus > 255) return fail("a CPU model for {} vCPUs was asked for; 1 to 255 are possible", vcpus);
  if (named->level != Level::kHost)
    if (const auto missing = missing_features(named->level); !missing.empty())
      return fail("CPU model '{}' needs {}, which this host's CPU lacks; usable here: {}", name,
                  fmt::join(missing, ", "), fmt::join(usable_models(), ", "));
  return Builder{*named, vcpus}.build();
}

}  // namespace bulkhead::engine
