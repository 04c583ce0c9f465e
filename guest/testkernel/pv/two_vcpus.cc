// What takes two vCPUs to go wrong: translations that one still has of a page that the other has given away, and vector
// registers of one that the other might see.
#include <stdint.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

#include "checks.h"

namespace testkernel {
namespace {

alignas(4096) u64 page[512], spare[512];
alignas(16) vcpu_guest_context_t context;

// What vCPU 1 is to do, and how far it is. Each word has one writer at a time.
enum class Task : u64 { kNone, kWrite, kVectors, kGoDown };
struct {
  volatile Task task;
  volatile u64* volatile target;
  volatile u64 faults;      // of kWrite, which ends by one
  volatile u64 rounds;      // of kWrite and kVectors
  volatile bool state_bad;  // kVectors saw what is not its own
} second;

void yield() { hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield); }

u64 nanoseconds() {
  static volatile shared_info_t* shared;
  if (shared == nullptr) {
    if (map(spare, boot_info->shared_info | kFlags) != 0) return 0;
    shared = reinterpret_cast<volatile shared_info_t*>(spare);
  }
  const auto& time = shared->vcpu_info[0].time;
  const u64 ticks = __builtin_ia32_rdtsc() - time.tsc_timestamp;
  const u64 scaled = time.tsc_shift < 0 ? ticks >> -time.tsc_shift : ticks << time.tsc_shift;
  return time.system_time + static_cast<u64>(static_cast<unsigned __int128>(scaled) * time.tsc_to_system_mul >> 32);
}

// False: not within 20 s, of which an honest answer takes none.
template <class Condition>
bool wait_for(Condition condition) {
  const u64 end = nanoseconds() + 20'000'000'000;
  while (!condition()) {
    if (nanoseconds() > end) return false;
    yield();
  }
  return true;
}

// ---- vector state: everything that XSAVE knows

struct alignas(64) VectorState {
  unsigned char bytes[4096];
};
VectorState initial, mine[2], seen[2];
u64 components;  // of XCR0

void cpuid(unsigned leaf, unsigned sub, unsigned (&out)[4]) {
  asm volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub));
}
// Upper halves of YMM, AVX-512's three.
constexpr unsigned kWide[] = {2, 5, 6, 7};

void enable_vectors() {
  unsigned out[4];
  cpuid(1, 0, out);
  if (!(out[2] & 1u << 26)) return;  // no XSAVE: what FXSAVE knows
  u64 cr4;
  asm volatile("mov %%cr4, %0" : "=r"(cr4));
  asm volatile("mov %0, %%cr4" ::"r"(cr4 | 1u << 18));
  cpuid(0xd, 0, out);
  components = out[0] & 0xe7;
  if ((components & 0xe0) != 0xe0) components &= 7;
  asm volatile("xsetbv" ::"c"(0), "a"(static_cast<unsigned>(components)), "d"(0));
}
void save(VectorState& to) {
  if (components != 0)
    asm volatile("xsave64 %0" : "+m"(to) : "a"(static_cast<unsigned>(components)), "d"(0));
  else
    asm volatile("fxsave64 %0" : "+m"(to));
}
void restore(const VectorState& from) {
  if (components != 0)
    asm volatile("xrstor64 %0" ::"m"(from), "a"(static_cast<unsigned>(components)), "d"(0));
  else
    asm volatile("fxrstor64 %0" ::"m"(from));
}
// Calls `act(begin, end)` for each part that holds registers.
template <class Act>
void for_each_part(Act act) {
  for (unsigned i = 0; i < 8; ++i) act(32 + 16 * i, 32 + 16 * i + 10);  // x87
  act(160, 160 + 256);                                                  // XMM
  for (const unsigned component : kWide) {
    if (!(components & 1u << component)) continue;
    unsigned out[4];
    cpuid(0xd, component, out);
    act(out[1], out[1] + out[0]);
  }
}
void fill(VectorState& state, unsigned seed) {
  state = {};
  *reinterpret_cast<uint16_t*>(state.bytes) = 0x37f;        // FCW
  *reinterpret_cast<uint32_t*>(state.bytes + 24) = 0x1f80;  // MXCSR
  *reinterpret_cast<u64*>(state.bytes + 512) = components;  // all are there
  state.bytes[4] = 0xff;                                    // x87: no register is empty
  for_each_part([&](unsigned begin, unsigned end) {
    for (unsigned i = begin; i < end; ++i) state.bytes[i] = static_cast<unsigned char>(seed + i);
  });
}
bool same(const VectorState& a, const VectorState& b) {
  bool equal = true;
  for_each_part([&](unsigned begin, unsigned end) {
    for (unsigned i = begin; i < end; ++i) equal = equal && a.bytes[i] == b.bytes[i];
  });
  return equal;
}
bool is_zero(const VectorState& state) {
  static const VectorState kZero{};
  return same(state, kZero);
}

// Calls in which the monitor copies, waits and switches.
void round_of_calls(unsigned vcpu) {
  static xen_extraversion_t text[2];
  hypercall(__HYPERVISOR_xen_version, XENVER_extraversion, address_of(text[vcpu]));
  static vcpu_runstate_info info[2];
  hypercall(__HYPERVISOR_vcpu_op, VCPUOP_get_runstate_info, vcpu, address_of(info[vcpu]));
  yield();
}

void keep_vectors(unsigned vcpu) {
  restore(mine[vcpu]);
  for (unsigned i = 0; i < 500; ++i) {
    round_of_calls(vcpu);
    save(seen[vcpu]);
    if (!same(seen[vcpu], mine[vcpu])) return;
  }
}

// ---- vCPU 1

extern "C" void second_start();  // entry.S: saves the vector state that it finds, then second_main
extern "C" void second_fault();
extern "C" unsigned char second_stack_end[];

bool start_second() {
  static bool started;
  if (started) return true;
  context.flags = VGCF_in_kernel;
  context.user_regs.rip = reinterpret_cast<u64>(second_start);
  context.user_regs.rsp = reinterpret_cast<u64>(second_stack_end);
  context.user_regs.rdi = address_of(initial);
  context.user_regs.rflags = 0x202;
  context.user_regs.cs = FLAT_KERNEL_CS;
  context.user_regs.ss = FLAT_KERNEL_SS;
  context.kernel_ss = FLAT_KERNEL_SS;
  context.kernel_sp = context.user_regs.rsp;
  context.ctrlreg[3] = machine_address(reinterpret_cast<void*>(boot_info->pt_base));
  for (unsigned i = 0; i < 32; ++i)
    context.trap_ctxt[i] = {static_cast<uint8_t>(i), 0, FLAT_KERNEL_CS, reinterpret_cast<u64>(second_fault)};
  if (hypercall(__HYPERVISOR_vcpu_op, VCPUOP_initialise, 1, address_of(context)) != 0) return false;
  started = hypercall(__HYPERVISOR_vcpu_op, VCPUOP_up, 1) == 0;
  return started;
}

// vCPU 1 writes to `at` without end, so that it has a translation.
bool let_second_write(volatile u64* at) {
  second.target = at;
  second.rounds = 0;
  second.faults = 0;
  second.task = Task::kWrite;
  return wait_for([] { return second.rounds > 100; });
}
// It still wrote when the page was taken away, and can no more.
bool second_was_stopped() {
  return wait_for([] { return second.faults == 1; });
}

// ---- the checks

void fresh_vectors() {
  enable_vectors();
  fill(mine[0], 0x11);
  restore(mine[0]);
  EXPECT(start_second());
  fill(mine[1], 0x77);
  second.rounds = 0;
  second.task = Task::kVectors;
  EXPECT(wait_for([] { return second.rounds == 1; }));
  EXPECT(is_zero(initial));  // of what vCPU 0 has there, nothing
}

void vectors_stay_apart() {
  second.rounds = 0;
  second.task = Task::kVectors;
  keep_vectors(0);
  EXPECT(same(seen[0], mine[0]));
  EXPECT(wait_for([] { return second.rounds == 1; }));
  EXPECT(!second.state_bad);
}

void vectors_over_exceptions() {
  restore(mine[0]);
  EXPECT(faults([] { asm volatile("int $0x80"); }) == 128);
  EXPECT(faults([] { asm volatile("ud2"); }) == 6);
  save(seen[0]);
  EXPECT(same(seen[0], mine[0]));
  EXPECT(hypercall(__HYPERVISOR_fpu_taskswitch, 1) == 0);
  EXPECT(faults([] { save(seen[0]); }) == 7);
  save(seen[0]);  // by then it may
  EXPECT(same(seen[0], mine[0]));
}

// The page becomes a page table while vCPU 1 can still write to it, as far as it has been told.
void typed() {
  EXPECT(let_second_write(page));
  EXPECT(map_self(page, kReadOnly) == 0);
  asm volatile("" ::: "memory");
  EXPECT(map(page, machine_of(page) << 12 | kReadOnly, UVMF_NONE) == 0);
  EXPECT(mmuext(MMUEXT_PIN_L2_TABLE, machine_of(page)) == 0);  // of level 1 it could be written still, by us
  const u64 then = *const_cast<volatile u64*>(page);
  EXPECT(second_was_stopped());
  EXPECT(*const_cast<volatile u64*>(page) == then);
  EXPECT(mmuext(MMUEXT_UNPIN_TABLE, machine_of(page)) == 0);
  EXPECT(map_self(page, kFlags) == 0);
}

// The page leaves, and comes back as another one.
void freed() {
  EXPECT(let_second_write(page));
  xen_pfn_t frame = machine_of(page);
  xen_memory_reservation_t reservation{};
  set_xen_guest_handle(reservation.extent_start, &frame);
  reservation.nr_extents = 1;
  reservation.domid = DOMID_SELF;
  EXPECT(map(page, 0, UVMF_NONE) == 0);
  EXPECT(operation(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, reservation) == 1);
  EXPECT(second_was_stopped());
  const u64 physical = (reinterpret_cast<u64>(page) - kBase) >> 12;
  frame = physical;
  EXPECT(operation(__HYPERVISOR_memory_op, XENMEM_populate_physmap, reservation) == 1);
  reinterpret_cast<u64*>(boot_info->mfn_list)[physical] = frame;
  EXPECT(map(page, frame << 12 | kFlags) == 0);
  for (const u64 word : page) EXPECT(word == 0);
}

// vCPU 1 writes through a grant that vCPU 0 has mapped and unmaps.
void ungranted() {
  constexpr unsigned kReference = 20;
  gnttab_setup_table_t setup{};
  setup.dom = DOMID_SELF;
  setup.nr_frames = 1;
  xen_pfn_t table_frame = 0;
  set_xen_guest_handle(setup.frame_list, &table_frame);
  EXPECT(operation(__HYPERVISOR_grant_table_op, GNTTABOP_setup_table, setup) == 0 && setup.status == 0);
  alignas(4096) static u64 window[512], grants[512];
  EXPECT(map(grants, table_frame << 12 | kFlags) == 0);
  auto& entry = reinterpret_cast<volatile grant_entry_v1_t*>(grants)[kReference];
  entry.domid = 1;  // its own number, which is 1 in every zone
  entry.frame = static_cast<uint32_t>(machine_of(page));
  entry.flags = GTF_permit_access;
  gnttab_map_grant_ref_t grant{};
  grant.host_addr = address_of(window);
  grant.flags = GNTMAP_host_map;
  grant.ref = kReference;
  grant.dom = DOMID_SELF;
  EXPECT(operation(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, grant) == 0 && grant.status == GNTST_okay);
  EXPECT(let_second_write(window));
  EXPECT(*const_cast<volatile u64*>(page) != 0);  // by the other address
  gnttab_unmap_grant_ref_t unmap{address_of(window), 0, grant.handle, 0};
  EXPECT(operation(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, unmap) == 0 && unmap.status == GNTST_okay);
  const u64 then = *const_cast<volatile u64*>(page);
  EXPECT(second_was_stopped());
  EXPECT(*const_cast<volatile u64*>(page) == then);
  EXPECT(operation(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, unmap) == 0);
  EXPECT(unmap.status == GNTST_bad_handle);
}

// An honest guest's way: an entry changed, and everybody told.
void unmapped_with_a_flush() {
  EXPECT(let_second_write(page));
  EXPECT(map(page, 0, UVMF_INVLPG | UVMF_ALL) == 0);
  EXPECT(second_was_stopped());
  EXPECT(map_self(page, kFlags) == 0);
}

constexpr Check kChecks[] = {
    {"fresh vector registers", fresh_vectors},
    {"vector registers of two vCPUs", vectors_stay_apart},
    {"vector registers over exceptions", vectors_over_exceptions},
    {"old translation of a page table", typed},
    {"old translation of a freed page", freed},
    {"old translation of a grant", ungranted},
    {"old translation of an unmapped page", unmapped_with_a_flush},
};

}  // namespace

unsigned check_two_vcpus() {
  const unsigned failed = run(kChecks);
  second.task = Task::kGoDown;
  return failed;
}

extern "C" [[noreturn]] void second_main() {
  if (second.faults == 0 && components != 0) {  // at its start: the wide registers too
    enable_vectors();
    save(initial);
  }
  while (true) {
    switch (second.task) {
      case Task::kNone:
        yield();
        break;
      case Task::kWrite:  // values that are no entries of a page table; ends by a fault
        for (u64 value = 2;; value += 2) {
          *second.target = value;
          second.rounds = second.rounds + 1;
        }
      case Task::kVectors:
        keep_vectors(1);
        second.state_bad = !same(seen[1], mine[1]);
        second.task = Task::kNone;
        second.rounds = 1;
        break;
      case Task::kGoDown:
        hypercall(__HYPERVISOR_vcpu_op, VCPUOP_down, 1);
        break;
    }
  }
}

extern "C" [[noreturn]] void second_faulted() {
  const bool expected = second.task == Task::kWrite;
  second.task = expected ? Task::kNone : Task::kGoDown;
  second.faults = second.faults + 1;
  second_main();
}

}  // namespace testkernel
