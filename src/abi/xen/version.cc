// xen_version [xen/version.h].
#include "abi/xen/version.h"

#include <xen/version.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"
#include "base/bits.h"

namespace bulkhead::abi::xen {
namespace {
constexpr std::string_view kExtraVersion = ".5-bulkhead";
constexpr std::string_view kCapabilitiesPv = "xen-3.0-x86_64 ", kCapabilitiesPvh = "xen-3.0-x86_64 hvm-3.0-x86_64 ";
constexpr std::string_view kDenied = "<denied>";

// What each kind of guest could be on this host: a zone says only what it is itself.
template <std::size_t N>
bool write_text(Guest& guest, u64 at, std::string_view text) {
  std::array<char, N> field{};
  std::memcpy(field.data(), text.data(), std::min(text.size(), N - 1));
  return guest.write(at, field);
}

bool write_compile_info(Guest& guest, u64 at) {
  xen_compile_info_t info{};
  std::strncpy(info.compiler, "gcc " __VERSION__, sizeof info.compiler - 1);
  std::strncpy(info.compile_by, "bulkhead", sizeof info.compile_by - 1);
  return guest.write(at, info);
}

i64 get_features(const DomainParts& d, Guest& guest, u64 at) {
  xen_feature_info_t info;
  if (!guest.read(at, info)) return -kXEFAULT;
  if (info.submap_idx >= XENFEAT_NR_SUBMAPS) return -kXEINVAL;
  info.submap = xen_features(d.config.kind, d.assists);
  return guest.write(at, info) ? 0 : -kXEFAULT;
}

i64 done(bool good) { return good ? 0 : -kXEFAULT; }
}  // namespace

u32 xen_features(GuestKind kind, u64 assists) {
  const auto feature = [](unsigned index) { return u32{1} << index; };
  // As Xen 4.17 has them. Without hvm_pirqs: interrupts of devices stay with the IOAPIC and the LAPIC.
  if (kind == GuestKind::kPvh)
    return feature(XENFEAT_writable_page_tables) | feature(XENFEAT_auto_translated_physmap) |
           feature(XENFEAT_hvm_callback_vector) | feature(XENFEAT_hvm_safe_pvclock) |
           feature(XENFEAT_memory_op_vnode_supported) | feature(XENFEAT_not_direct_mapped);
  const u32 above_4gb = bit(assists, VMASST_TYPE_pae_extended_cr3) ? feature(XENFEAT_pae_pgdir_above_4gb) : 0;
  return above_4gb | feature(XENFEAT_mmu_pt_update_preserve_ad) | feature(XENFEAT_highmem_assist) |
         feature(XENFEAT_gnttab_map_avail_bits) | feature(XENFEAT_memory_op_vnode_supported) |
         feature(XENFEAT_direct_mapped);
}

Answer xen_version(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  const u64 at = args[1];
  switch (args[0]) {
    case XENVER_version:
      return {kXenVersion};
    case XENVER_extraversion:
      return {done(write_text<sizeof(xen_extraversion_t)>(guest, at, kExtraVersion))};
    case XENVER_compile_info:
      return {done(write_compile_info(guest, at))};
    case XENVER_capabilities:
      return {done(
          write_text<sizeof(xen_capabilities_info_t)>(guest, at, domain.is_pv() ? kCapabilitiesPv : kCapabilitiesPvh))};
    case XENVER_changeset:
      return {done(write_text<sizeof(xen_changeset_info_t)>(guest, at, ""))};
    case XENVER_platform_parameters:
      return {done(guest.write(at, xen_platform_parameters_t{HYPERVISOR_VIRT_START}))};
    case XENVER_get_features:
      return {get_features(domain, guest, at)};
    case XENVER_pagesize:
      return {static_cast<i64>(kPageSize)};
    case XENVER_guest_handle:
      return {done(guest.write(at, domain.config.uuid))};
    case XENVER_commandline:
      return {done(write_text<sizeof(xen_commandline_t)>(guest, at, kDenied))};
    case XENVER_build_id:
      return {-kXEPERM};  // as Xen answers a guest that is not privileged
    default:
      return domain.unknown_operation();
  }
}

}  // namespace bulkhead::abi::xen
