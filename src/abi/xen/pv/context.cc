// How a vCPU begins: vCPU 0 as the domain builder says, the others as VCPUOP_initialise does.
#include <xen/errno.h>
#include <xen/xen.h>

#include <cstring>

#include "abi/xen/pv/call.h"

namespace bulkhead::abi::xen::pv {

Guest::Guest(engine::Partition& partition, PageTables& memory, unsigned vcpus, Ended ended)
    : partition_{partition}, memory_{memory}, ended_{std::move(ended)} {
  for (unsigned i = 0; i < vcpus; ++i) vcpus_.push_back(std::make_unique<VcpuRecord>());
}

Guest::~Guest() = default;

Result<void> Guest::start(const Entry& entry) {
  BH_ASSERT(domain_ != nullptr);
  memory_.set_stop_writes([this](u64 frame) {
    u64 innocent = 0;  // a frame that may become a table has no writable mapping any more, and these know it
    for (unsigned i = 0; i < vcpus_.size(); ++i) innocent |= u64{knows_all_losses(i)} << i;
    partition_.stop_writes(frame << kPageShift, innocent);
  });
  for (unsigned i = 0; i < vcpus_.size(); ++i) memory_.map_descriptors(i, {});
  if (memory_.pin(entry.root, 4) != 0 || memory_.take_root(entry.root) != 0)
    return fail("the page tables of the domain builder are not valid");
  VcpuRecord& first = *vcpus_[0];
  first.kernel_root = entry.root;
  first.initialised = true;
  first.start = std::make_unique<StartContext>();
  first.start->rip = entry.rip;
  first.start->gpr[Cpu::kRsp] = entry.stack;
  first.start->gpr[Cpu::kRsi] = entry.start_info;
  first.start->cs = FLAT_KERNEL_CS;
  first.start->ss = FLAT_KERNEL_SS;
  first.start->flat = true;
  return partition_.set_deprivileged(*this);
}

// On the vCPU's own thread, before its first instruction.
void Guest::begin(Cpu& cpu) {
  VcpuRecord& v = record(cpu);
  const std::unique_ptr<StartContext> start = std::move(v.start);
  cpu.set_roots(v.kernel_root << kPageShift, v.user_root << kPageShift);
  cpu.set_mode(engine::GuestMode::kKernel);
  cpu.flush_tlb(true);
  cpu.set_descriptor_table(false, memory_.descriptor_base(cpu.index()), kDescriptorPages * kPageSize - 1);
  cpu.set_descriptor_table(true, 0, 0);
  cpu.gpr() = start->gpr;
  cpu.rip() = start->rip;
  cpu.set_rflags(start->rflags);
  if (v.ldt_entries != 0 && set_ldt(cpu, v.ldt_base, v.ldt_entries) != 0) v.ldt_entries = 0;
  cpu.load_segment(Cpu::kDs, start->ds);
  cpu.load_segment(Cpu::kEs, start->es);
  cpu.load_segment(Cpu::kFs, start->fs);
  cpu.load_segment(Cpu::kGs, start->gs);
  cpu.set_base(Cpu::kFs, start->fs_base);
  cpu.set_base(Cpu::kGs, start->gs_base_kernel);
  cpu.hidden_gs_base() = start->gs_base_user;
  if (start->flat || !cpu.load_code_and_stack(start->cs, start->ss))
    cpu.set_flat_code_and_stack(FLAT_KERNEL_CS, FLAT_KERNEL_SS);
  cpu.reset_vector_state();
  if (start->vector_state_valid) cpu.set_vector_state(start->vector_state);
  for (unsigned i = 0; i < 4; ++i) write_debug(cpu, i, start->debug[i]);
  write_debug(cpu, 7, start->debug[7]);
  cpu.set_task_switched(v.cr0 & 8);
  if (!start->in_kernel && v.user_root != 0) toggle(cpu);
  cpu.set_halted(false);
  domain_->set_runstate(cpu.index(), Runstate::kRunning);
}

i64 Guest::initialise(Caller& caller, unsigned vcpu, u64 pointer) {
  auto context = std::make_unique<vcpu_guest_context_t>();
  if (!caller.read(pointer, std::as_writable_bytes(std::span{context.get(), 1}))) {
    counters_[kBadPointers].add();
    return -XEN_EFAULT;
  }
  const vcpu_guest_context_t& c = *context;
  VcpuRecord& v = *vcpus_[vcpu];
  Lock lock{initialise_mutex_};  // two vCPUs may want the same third one
  if (v.initialised) return -XEN_EEXIST;
  for (const u64 address : {u64{c.user_regs.rip}, u64{c.fs_base}, u64{c.gs_base_kernel}, u64{c.gs_base_user},
                            u64{c.event_callback_eip}, u64{c.failsafe_callback_eip}, u64{c.syscall_callback_eip}})
    if (!canonical(address)) return -XEN_EINVAL;
  if (c.gdt_ents > 14 * 512 || c.ldt_ents > 8192) return -XEN_EINVAL;

  // What the tables and frames are needed for first: these can be refused.
  const u64 root = c.ctrlreg[3] >> kPageShift, user_root = (c.flags & VGCF_in_kernel) ? 0 : c.ctrlreg[1] >> kPageShift;
  if (const i64 error = memory_.take_root(root); error != 0) return error;
  if (user_root != 0)
    if (const i64 error = memory_.take_root(user_root); error != 0) return memory_.put_root(root), error;
  std::array<u64, kGuestDescriptorPages> frames;
  const std::size_t count = (c.gdt_ents + 511) / 512;
  for (std::size_t i = 0; i < count; ++i) frames[i] = c.gdt_frames[i];
  if (const i64 error = load_gdt(vcpu, v, std::span{frames}.first(count), static_cast<u32>(c.gdt_ents)); error != 0) {
    memory_.put_root(root);
    if (user_root != 0) memory_.put_root(user_root);
    return error;
  }
  v.kernel_root = root;
  v.user_root = user_root;

  auto start = std::make_unique<StartContext>();
  const cpu_user_regs_t& r = c.user_regs;
  start->gpr = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
                r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
  start->rip = r.rip;
  start->rflags = r.rflags & ~u64{0x3000};
  start->cs = static_cast<u16>(r.cs | 3);
  start->ss = static_cast<u16>(r.ss | 3);
  start->ds = r.ds;
  start->es = r.es;
  start->fs = r.fs;
  start->gs = r.gs;
  start->fs_base = c.fs_base;
  start->gs_base_kernel = c.gs_base_kernel;
  start->gs_base_user = c.gs_base_user;
  start->in_kernel = c.flags & VGCF_in_kernel;
  start->vector_state_valid = c.flags & VGCF_i387_valid;
  std::memcpy(start->vector_state.data(), &c.fpu_ctxt, start->vector_state.size());
  for (unsigned i = 0; i < 8; ++i) start->debug[i] = c.debugreg[i];
  for (const trap_info_t& info : c.trap_ctxt) {
    if (!canonical(info.address)) continue;
    v.traps[&info - c.trap_ctxt] = {info.address, static_cast<u16>(info.cs | 3), static_cast<u8>(TI_GET_DPL(&info)),
                                    TI_GET_IF(&info) != 0};
  }
  v.ldt_base = c.ldt_base;
  v.ldt_entries = static_cast<u32>(c.ldt_ents);
  v.kernel_ss = static_cast<u16>(c.kernel_ss | 3);
  v.kernel_sp = c.kernel_sp;
  v.iopl = static_cast<u8>((r.rflags >> 12) & 3);
  v.cr0 = c.ctrlreg[0];
  v.event = {c.event_callback_eip, true};
  v.failsafe = {c.failsafe_callback_eip, (c.flags & VGCF_failsafe_disables_events) != 0};
  v.syscall = {c.syscall_callback_eip, (c.flags & VGCF_syscall_disables_events) != 0};
  v.start = std::move(start);
  v.initialised = true;
  return 0;
}

// ---- frames

i64 Guest::place(u64, std::byte*) { return -XEN_EOPNOTSUPP; }

u64 Guest::frame_of(const std::byte* our_page) { return memory_.frame_at(our_page); }

}  // namespace bulkhead::abi::xen::pv
