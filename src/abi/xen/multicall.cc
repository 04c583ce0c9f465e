// multicall: several hypercalls in one [xen/xen.h "multicall_entry"]; and vm_assist.
#include <algorithm>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {
// Linux batches 32. Xen has no limit, but lets others run in between; we do not.
constexpr u64 kMostCalls = 8192;
constexpr u64 kAtOnce = 8;  // entries read ahead

// Which of two calls' wishes the vCPU follows afterwards: the weightier.
After heavier(After a, After b) { return std::max(a, b); }
}  // namespace

Answer multicall(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  DomainParts::VcpuData& data = domain.vcpu[guest.vcpu()];
  const u64 list = args[0], count = args[1] & ~u32{0};
  if (data.in_multicall || count > kMostCalls) {
    domain.counters[kRefusedMulticalls].add();
    return {data.in_multicall ? -kXEINVAL : -kXE2BIG};
  }
  data.in_multicall = true;
  Answer answer;
  std::array<multicall_entry_t, kAtOnce> entries;
  for (u64 i = 0; i < count && answer.value == 0 && answer.after != After::kEnd; ++i) {
    const u64 at = list + i * sizeof(multicall_entry_t);
    if (i % kAtOnce == 0) {
      const auto next = std::span{entries}.first(std::min(kAtOnce, count - i));
      if (!guest.read_bytes(at, std::as_writable_bytes(next))) {
        answer.value = -kXEFAULT;
        break;
      }
    }
    const multicall_entry_t& entry = entries[i % kAtOnce];
    HypercallArgs inner;
    std::copy_n(entry.args, inner.size(), inner.begin());
    const Answer one = domain.dispatch(guest.caller, entry.op, inner);
    answer.after = heavier(answer.after, one.after);
    if (!guest.write(at + offsetof(multicall_entry_t, result), static_cast<u64>(one.value))) answer.value = -kXEFAULT;
  }
  data.in_multicall = false;
  return answer;
}

static void assist_changed(DomainParts& domain) {
  if (domain.config.engine_events != nullptr)
    domain.config.engine_events->set_runstate_flag((domain.assists >> VMASST_TYPE_runstate_update_flag & 1) != 0);
}

Answer vm_assist(DomainParts& domain, const HypercallArgs& args) {
  constexpr u64 kPvh = u64{1} << VMASST_TYPE_runstate_update_flag;
  constexpr u64 kPv = kPvh | 1u << VMASST_TYPE_4gb_segments | 1u << VMASST_TYPE_4gb_segments_notify |
                      1u << VMASST_TYPE_writable_pagetables | 1u << VMASST_TYPE_pae_extended_cr3 |
                      1u << VMASST_TYPE_architectural_iopl | u64{1} << VMASST_TYPE_m2p_strict;
  const u64 type = args[1];
  if (type >= 64 || !((domain.is_pv() ? kPv : kPvh) >> type & 1)) return {-kXEINVAL};
  switch (args[0]) {
    case VMASST_CMD_enable:
      domain.assists |= u64{1} << type;
      assist_changed(domain);
      return {};
    case VMASST_CMD_disable:
      domain.assists &= ~(u64{1} << type);
      assist_changed(domain);
      return {};
    default:
      return domain.unknown_operation();
  }
}

}  // namespace bulkhead::abi::xen
