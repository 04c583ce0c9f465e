// A Xen PV guest on an engine that can run guests without privilege: what Xen does between the hardware and a PV
// kernel. Source: Xen's public headers (libxen-dev 4.17). The hypercalls that PV and PVH guests share are the Domain's.
//
// Threads: traps on the vCPU's own; Frames and Vcpus from any. A guest's mistake is an error number and a counter, or
// the end of the zone as a crash where Xen would end the domain.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "abi/xen/domain.h"
#include "abi/xen/pv/page_tables.h"
#include "abi/xen/pv/vcpu.h"
#include "engine/engine.h"

namespace bulkhead::abi::xen::pv {

struct MmuextOp;

// Where a fresh guest begins: what the builder has put into its memory.
struct Entry {
  u64 rip = 0, stack = 0, start_info = 0;  // virtual
  u64 root = 0;                            // frame of the top-level table
};

class Guest final : public engine::DeprivilegedGuest, public GuestCalls, public Frames, public Vcpus {
 public:
  // Called when the guest ends itself; `crash` says why if it was not its wish. On a vCPU's thread, must not block.
  using Ended = std::function<void(ShutdownReason reason, const std::string& crash)>;
  Guest(engine::Partition& partition, PageTables& memory, unsigned vcpus, Ended ended);
  ~Guest() override;
  // Both ways: the Domain knows us as its Frames, Vcpus and GuestCalls. Before start().
  void set_domain(Domain& domain) { domain_ = &domain; }
  // Takes over the partition's vCPUs; vCPU 0 will start at `entry`. Errors: the engine cannot; the tables are bad.
  Result<void> start(const Entry& entry);

  // ---- engine::DeprivilegedGuest
  void trap(engine::DeprivilegedCpu& cpu, const engine::Trap& trap) override;
  void attention(engine::DeprivilegedCpu& cpu) override;
  // ---- GuestCalls
  std::optional<Answer> hypercall(Caller& caller, u64 number, const std::array<u64, 6>& args) override;
  // ---- Frames
  std::byte* hold(u64 frame, Hold use) override { return memory_.hold(frame, use); }
  void let_go(u64 frame, Hold use) override { memory_.let_go(frame, use); }
  void note_written(u64 frame) override;
  i64 place(u64 frame, std::byte* page) override;
  u64 frame_of(const std::byte* our_page) override;
  i64 release(u64 frame) override { return memory_.release(frame); }
  i64 populate(u64& frame) override { return memory_.populate(frame); }
  u64 current_pages() const override { return memory_.current_pages(); }
  u64 maximum_pages() const override { return memory_.layout().ram_frames; }
  u64 maximum_frame() const override { return memory_.layout().end() - 1; }
  i16 map_grant(Caller& caller, u64 frame, u64 address, u32 flags) override;
  i16 unmap_grant(Caller& caller, u64 frame, u64 address, u32 flags, u64 replacement) override;
  // ---- Vcpus
  unsigned count() const override { return static_cast<unsigned>(vcpus_.size()); }
  void notify(unsigned vcpu) override { partition_.signal_attention(vcpu); }
  void send_nmi(unsigned vcpu) override;
  i64 initialise(Caller& caller, unsigned vcpu, u64 context) override;
  void shutdown(ShutdownReason reason) override { ended_(reason, {}); }

  enum Counter : std::size_t {
    kEmulated,
    kEmulatedTableWrites,
    kRefusedInstructions,
    kUnknownMsrs,
    kFailsafes,
    kGuestTraps,
    kBadPointers
  };
  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  using Cpu = engine::DeprivilegedCpu;
  struct Call;  // a hypercall's caller: call.h
  VcpuRecord& record(const Cpu& cpu) { return *vcpus_[cpu.index()]; }

  // traps.cc
  void system_call(Cpu& cpu, const engine::Trap& trap);
  void run_hypercall(Cpu& cpu, u64 return_rip);
  void sysenter(Cpu& cpu, const engine::Trap& trap);
  void software_interrupt(Cpu& cpu, const engine::Trap& trap);
  void exception(Cpu& cpu, const engine::Trap& trap);
  void page_fault(Cpu& cpu, const engine::Trap& trap);
  bool write_page_table(Cpu& cpu, u64 linear);
  void inject(Cpu& cpu, u8 vector, std::optional<u32> error);
  void deliver_events(Cpu& cpu);
  void crash(Cpu& cpu, const std::string& why);
  // bounce.cc
  void bounce(Cpu& cpu, const Callback& handler, std::optional<u32> error = {});
  void bounce_failsafe(Cpu& cpu, u16 cs, u16 ss);
  void toggle(Cpu& cpu);
  void enter_kernel(Cpu& cpu, const Callback& handler, std::span<const u64> told, u16 cs, u16 ss);
  bool push_frame(Cpu& cpu, std::span<const u64> words);
  u64 guest_flags(const Cpu& cpu, bool masked);
  Answer iret(Cpu& cpu);
  // emulate.cc
  bool emulate(Cpu& cpu, bool kernel);
  bool forced_cpuid(Cpu& cpu);
  bool read_msr(Cpu& cpu, u32 index, u64& value);
  bool write_msr(Cpu& cpu, u32 index, u64 value);
  u64 guest_cr0(Cpu& cpu);
  bool write_cr(Cpu& cpu, unsigned index, u64 value);
  i64 write_debug(Cpu& cpu, u64 index, u64 value);
  // context.cc
  void begin(Cpu& cpu);
  // mmu_calls.cc
  Answer mmu_update(Call& call, const std::array<u64, 6>& args);
  Answer mmuext_op(Call& call, const std::array<u64, 6>& args);
  i64 one_mmuext(Call& call, const MmuextOp& op);
  Answer update_va_mapping(Call& call, const std::array<u64, 6>& args);
  OnLoss forgetting(Cpu& cpu);
  bool knows_all_losses(unsigned vcpu) const;
  void flush_own(Cpu& cpu);  // as far as there is something to forget
  void flush_own_page(Cpu& cpu, u64 linear);
  i64 new_base(Cpu& cpu, u64 frame);
  i64 new_user_base(Cpu& cpu, u64 frame);
  i64 set_ldt(Cpu& cpu, u64 linear, u32 entries);
  std::optional<u64> grant_entry(const Call& call, u64 address, u32 flags);  // grant_maps.cc
  i64 flush_mask(Call& call, u64 pointer, u64& mask);
  template <class Request, class One>
  Answer work_through(Call& call, u64 number, const std::array<u64, 6>& args, One one);
  // calls.cc
  Answer set_trap_table(Call& call, u64 table);
  Answer set_gdt(Call& call, u64 frames, u64 entries);
  Answer callback_op(Call& call, u64 command, u64 argument);
  Answer physdev_op(Call& call, u64 command, u64 argument);
  Answer set_segment_base(Cpu& cpu, u64 which, u64 base);
  i64 set_callback(VcpuRecord& v, unsigned type, Callback callback);
  i64 load_gdt(unsigned vcpu, VcpuRecord& v, std::span<const u64> frames, u32 entries);

  engine::Partition& partition_;
  PageTables& memory_;
  Domain* domain_ = nullptr;
  const Ended ended_;
  Mutex initialise_mutex_;
  std::vector<std::unique_ptr<VcpuRecord>> vcpus_;
  telemetry::CounterSet counters_{{"pv_emulated_instructions", "pv_emulated_table_writes", "pv_refused_instructions",
                                   "pv_unknown_msrs", "pv_failsafe_callbacks", "pv_guest_traps", "pv_bad_pointers"}};
};

}  // namespace bulkhead::abi::xen::pv
