// The hypercalls that change page tables and translations [xen/xen.h mmu_update, mmuext_op, update_va_mapping].
#include <xen/errno.h>
#include <xen/xen.h>

#include "abi/xen/pv/call.h"

namespace bulkhead::abi::xen::pv {
namespace {

constexpr u64 kPreempted = u64{1} << 31;
constexpr u64 kMostOps = u64{1} << 20;  // of one call
// In units of one entry written, some 50 ns. Within a multicall there is no going on later; nobody needs that much.
constexpr u64 kWorkPerTable = 32, kWorkPerOp = 64, kSlice = u64{1} << 17, kNestedWork = u64{1} << 23;

bool is_self(u64 domain) { return (domain & 0xffff) == DOMID_SELF; }

}  // namespace

struct MmuextOp : mmuext_op {};

// The requests of a list one after the other. A call that takes long is made again for the rest, as Xen does it, so
// that the vCPU can be stopped in between; how many are done so far lies where the guest wants to read it.
template <class Request, class One>
Answer Guest::work_through(Call& call, u64 number, const std::array<u64, 6>& args, One one) {
  const u64 count = args[1] & ~kPreempted;
  if (count > kMostOps) return {-XEN_EINVAL};
  unsigned before = 0;
  if ((args[1] & kPreempted) && args[2] != 0 && !call.get(args[2], before)) return {-XEN_EFAULT};
  const bool nested = call.nested(number);
  u64& work = call.v.work;
  i64 error = 0;
  u64 done = 0;
  for (; done < count && error == 0; ++done) {
    if (work > (nested ? kNestedWork : kSlice)) {
      if (nested) error = -XEN_EAGAIN;
      break;
    }
    Request request;
    if (!call.get(args[0] + done * sizeof request, request)) {
      error = -XEN_EFAULT;
      break;
    }
    const u64 walked = FrameTable::walked_here();
    if ((error = one(request)) != 0) break;
    work += 1 + kWorkPerTable * (FrameTable::walked_here() - walked);
  }
  const unsigned successes = before + static_cast<unsigned>(done);
  if (args[2] != 0 && !call.put(args[2], successes)) error = -XEN_EFAULT;
  if (error == 0 && done < count) {
    auto& gpr = call.cpu.gpr();
    gpr[Cpu::kRdi] = args[0] + done * sizeof(Request);
    gpr[Cpu::kRsi] = (count - done) | kPreempted;
    call.v.call_again = true;
  }
  return {error};
}

Answer Guest::mmu_update(Call& call, const std::array<u64, 6>& args) {
  if (!is_self(args[3]) || (args[3] >> 16 & 0xffff) != 0) return {-XEN_ESRCH};
  return work_through<struct mmu_update>(call, __HYPERVISOR_mmu_update, args, [&](const struct mmu_update& request) {
    const u64 machine = request.ptr & ~u64{3};
    switch (request.ptr & 3) {
      case MMU_NORMAL_PT_UPDATE:
      case MMU_PT_UPDATE_NO_TRANSLATE:
        return memory_.update(machine & ~u64{7}, request.val, AccessedDirty::kAsGiven, forgetting(call.cpu));
      case MMU_PT_UPDATE_PRESERVE_AD:
        return memory_.update(machine & ~u64{7}, request.val, AccessedDirty::kPreserve, forgetting(call.cpu));
      default:
        return memory_.set_machine_to_physical(machine >> kPageShift, request.val);
    }
  });
}

// Its translations stay as good as they were: what is lost is forgotten.
OnLoss Guest::forgetting(Cpu& cpu) {
  return [&cpu, &known = record(cpu).losses_known](const LostEntry& lost) {
    if (known != lost.order || lost.level != 1 || lost.code) return;  // a flush is owed anyway, or from now on
    cpu.forget_entry(lost.index, lost.frame << kPageShift);
    known = lost.order + 1;
  };
}

bool Guest::knows_all_losses(unsigned vcpu) const { return vcpus_[vcpu]->losses_known == memory_.losses(); }

void Guest::flush_own(Cpu& cpu) {
  if (knows_all_losses(cpu.index())) return;
  const u64 losses = memory_.losses();
  cpu.flush_tlb(true);
  record(cpu).losses_known = losses;
}

void Guest::flush_own_page(Cpu& cpu, u64 linear) {
  if (!knows_all_losses(cpu.index())) cpu.flush_page(linear);
}

// A bitmap of vCPUs in the guest's memory.
i64 Guest::flush_mask(Call& call, u64 pointer, u64& mask) {
  const std::size_t bytes = (vcpus_.size() + 7) / 8;
  std::array<std::byte, 8> bits{};
  if (!call.get(pointer, std::span{bits}.first(bytes))) return -XEN_EFAULT;
  mask = 0;
  for (std::size_t i = 0; i < bytes; ++i) mask |= u64{static_cast<u8>(bits[i])} << 8 * i;
  return 0;
}

i64 Guest::new_base(Cpu& cpu, u64 frame) {
  VcpuRecord& v = record(cpu);
  if (frame == v.kernel_root) {
    if (!knows_all_losses(cpu.index())) cpu.flush_tlb(false);
    return 0;
  }
  if (const i64 error = memory_.take_root(frame); error != 0) return error;
  const u64 old = v.kernel_root;
  const bool same_kernel = old != 0 && memory_.same_kernel_half(old, frame);
  v.kernel_root = frame;
  cpu.set_roots(frame << kPageShift, v.user_root << kPageShift);
  cpu.flush_tlb(!same_kernel);
  if (old != 0) memory_.put_root(old);
  return 0;
}

i64 Guest::new_user_base(Cpu& cpu, u64 frame) {
  VcpuRecord& v = record(cpu);
  if (frame == v.user_root) return 0;
  if (frame != 0)
    if (const i64 error = memory_.take_root(frame); error != 0) return error;
  const u64 old = v.user_root;
  v.user_root = frame;
  cpu.set_roots(v.kernel_root << kPageShift, frame << kPageShift);
  cpu.flush_tlb(false);
  if (old != 0) memory_.put_root(old);
  return 0;
}

i64 Guest::one_mmuext(Call& call, const MmuextOp& op) {
  constexpr u64 kAll = ~u64{0};
  Cpu& cpu = call.cpu;
  u64 mask = kAll;
  switch (op.cmd) {
    case MMUEXT_PIN_L1_TABLE:
    case MMUEXT_PIN_L2_TABLE:
    case MMUEXT_PIN_L3_TABLE:
    case MMUEXT_PIN_L4_TABLE:
      return memory_.pin(op.arg1.mfn, op.cmd - MMUEXT_PIN_L1_TABLE + 1);
    case MMUEXT_UNPIN_TABLE:
      return memory_.unpin(op.arg1.mfn);
    case MMUEXT_NEW_BASEPTR:
      return new_base(cpu, op.arg1.mfn);
    case MMUEXT_NEW_USER_BASEPTR:
      return new_user_base(cpu, op.arg1.mfn);
    case MMUEXT_TLB_FLUSH_LOCAL:
      flush_own(cpu);
      return 0;
    case MMUEXT_INVLPG_LOCAL:
      flush_own_page(cpu, op.arg1.linear_addr);
      return 0;
    case MMUEXT_TLB_FLUSH_MULTI:
    case MMUEXT_INVLPG_MULTI:
      if (const i64 error = flush_mask(call, reinterpret_cast<u64>(op.arg2.vcpumask.p), mask); error != 0) return error;
      [[fallthrough]];
    case MMUEXT_TLB_FLUSH_ALL:
    case MMUEXT_INVLPG_ALL:
      if (mask >> cpu.index() & 1) {
        if (op.cmd == MMUEXT_INVLPG_MULTI || op.cmd == MMUEXT_INVLPG_ALL)
          flush_own_page(cpu, op.arg1.linear_addr);
        else
          flush_own(cpu);
      }
      cpu.flush_others(mask);
      return 0;
    case MMUEXT_FLUSH_CACHE:
    case MMUEXT_FLUSH_CACHE_GLOBAL:
      return -XEN_EACCES;  // for guests with hardware of their own
    case MMUEXT_SET_LDT:
      return set_ldt(cpu, op.arg1.linear_addr, op.arg2.nr_ents);
    case MMUEXT_CLEAR_PAGE:
      return memory_.clear_page(op.arg1.mfn);
    case MMUEXT_COPY_PAGE:
      return memory_.copy_page(op.arg1.mfn, op.arg2.src_mfn);
    case MMUEXT_MARK_SUPER:
    case MMUEXT_UNMARK_SUPER:
      return -XEN_EOPNOTSUPP;
    default:
      return -XEN_ENOSYS;
  }
}

Answer Guest::mmuext_op(Call& call, const std::array<u64, 6>& args) {
  if (!is_self(args[3])) return {args[3] == DOMID_IO ? -XEN_EPERM : -XEN_ESRCH};
  return work_through<MmuextOp>(call, __HYPERVISOR_mmuext_op, args, [&](const MmuextOp& op) {
    call.v.work += kWorkPerOp;
    return one_mmuext(call, op);
  });
}

Answer Guest::update_va_mapping(Call& call, const std::array<u64, 6>& args) {
  Cpu& cpu = call.cpu;
  const u64 linear = args[0], flags = args[2];
  const auto entry = memory_.leaf_entry(call.v.kernel_root, linear);
  i64 error = -XEN_EINVAL;
  if (entry) error = memory_.update(*entry, args[1], AccessedDirty::kAsGiven, forgetting(cpu));
  const bool one = (flags & UVMF_FLUSHTYPE_MASK) == UVMF_INVLPG;
  if ((flags & UVMF_FLUSHTYPE_MASK) == 0) return {error};
  u64 mask = u64{1} << cpu.index();
  const u64 where = flags & ~u64{UVMF_FLUSHTYPE_MASK};
  if (where == UVMF_ALL) {
    mask = ~u64{0};
  } else if (where != UVMF_LOCAL) {
    if (const i64 bad = flush_mask(call, where, mask); bad != 0) return {bad};
  }
  if (mask >> cpu.index() & 1) {
    if (one)
      flush_own_page(cpu, linear);
    else
      flush_own(cpu);
  }
  cpu.flush_others(mask & ~(u64{1} << cpu.index()));
  return {error};
}

// The processor reads the table where it lies in the kernel's address space; its frames stay tables of descriptors as
// long as it is in use.
i64 Guest::set_ldt(Cpu& cpu, u64 linear, u32 entries) {
  VcpuRecord& v = record(cpu);
  if (linear % kPageSize != 0 || entries > 8192 || (entries != 0 && !Call::allowed(linear, u64{entries} * 8)))
    return -XEN_EINVAL;
  std::vector<u64> frames;
  i64 error = 0;
  for (u64 at = linear; entries != 0 && at < linear + u64{entries} * 8 && error == 0; at += kPageSize) {
    const auto machine = cpu.translate(at, false);
    error = machine ? memory_.take_descriptors(*machine >> kPageShift) : -XEN_EFAULT;
    if (error == 0) frames.push_back(*machine >> kPageShift);
  }
  std::vector<u64>& dropped = error == 0 ? v.ldt_frames : frames;
  for (const u64 frame : dropped) memory_.put_descriptors(frame);
  if (error != 0) return error;
  v.ldt_frames = std::move(frames);
  v.ldt_base = linear;
  v.ldt_entries = entries;
  cpu.set_descriptor_table(true, linear, entries == 0 ? 0 : entries * 8 - 1);
  return 0;
}

}  // namespace bulkhead::abi::xen::pv
