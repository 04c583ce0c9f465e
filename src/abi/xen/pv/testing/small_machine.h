// A PV guest of 512 frames on vCPUs that run nothing: real page tables, a real Guest, a real Domain. One table of level
// 1 maps frame n at address(n), writable but for the tables themselves.
#pragma once
#include <xen/callback.h>
#include <xen/errno.h>
#include <xen/xen.h>

#include <memory>
#include <string>

#include "abi/xen/pv/guest.h"
#include "abi/xen/pv/testing/fake_cpu.h"
#include "base/fake_timers.h"

namespace bulkhead::abi::xen::pv::testing {

inline GuestMemory make_memory(const Layout& layout) {
  auto memory = GuestMemory::create(
      {{Gpa{0}, layout.ram_frames << kPageShift},
       {Gpa{layout.ram_frames << kPageShift}, (layout.all_frames - layout.ram_frames) << kPageShift}});
  BH_ASSERT(memory.has_value());
  return std::move(*memory);
}

class FakePartition final : public engine::Partition {
 public:
  engine::Vcpu& vcpu(unsigned) override { BH_ASSERT(false); }
  void set_extint(bool) override {}
  void set_extint_source(engine::ExtIntSource*) override {}
  void inject_nmi(unsigned) override {}
  void inject_direct(unsigned, u8) override {}
  Result<void> set_deprivileged(engine::DeprivilegedGuest&) override { return {}; }
  void stop_writes(u64 gpa_page, u64 who_does_not) override {
    stopped_writes.push_back(gpa_page >> kPageShift);
    innocent = who_does_not;
  }
  u64 guest_tsc() const override { return 0; }
  void signal_attention(unsigned vcpu) override { attention.push_back(vcpu); }
  void set_eoi_handler(std::function<void(u8)>) override {}
  Result<std::unique_ptr<engine::Registration>> notify_on_write(const engine::WritePlace& place, int eventfd) override {
    return registrations_.add_write(place, eventfd);
  }
  void send(Msi) override {}
  engine::EmulatedRegistrations registrations_;

  std::vector<unsigned> attention;
  std::vector<u64> stopped_writes;
  u64 innocent = 0;  // at the last of them
};

inline constexpr u64 kFrames = 512, kBase = 0xffffffff80000000;
inline constexpr u64 kL4 = 1, kL3 = 2, kL2 = 3, kL1 = 4, kStack = 8, kFirstFree = 16;
inline constexpr u64 kFlags = kPresent | kWritable | kUser | kAccessed | kDirty,
                     kReadOnly = kPresent | kUser | kAccessed;
inline constexpr u64 kHypervisor = 0xffff800000000000;
constexpr u64 address(u64 frame, u64 offset = 0) { return kBase + (frame << kPageShift) + offset; }

struct SmallMemory {
  const Layout layout = Layout::of(kFrames);
  GuestMemory memory = make_memory(layout);
  SmallMemory() {
    table(kL4)[511] = make_entry(kL3, kFlags);
    table(kL3)[510] = make_entry(kL2, kFlags);
    table(kL2)[0] = make_entry(kL1, kFlags);
    for (u64 i = 0; i < kFrames; ++i) table(kL1)[i] = make_entry(i, i >= kL4 && i <= kL1 ? kReadOnly : kFlags);
  }
  u64* table(u64 frame) const { return reinterpret_cast<u64*>(memory.host(Gpa{frame << kPageShift}, kPageSize)); }
  template <class T>
  T& at(u64 frame, u64 offset = 0) const {
    return *reinterpret_cast<T*>(reinterpret_cast<std::byte*>(table(frame)) + offset);
  }
};

class SmallMachine : public SmallMemory {
 public:
  static constexpr unsigned kVcpus = 2;
  using Cpu = engine::DeprivilegedCpu;

  FakePartition partition;
  FakeTimerService timers;
  PageTables tables{memory, layout};
  std::vector<std::string> crashes;
  std::vector<ShutdownReason> ends;
  Guest guest{partition, tables, kVcpus, [this](ShutdownReason reason, const std::string& why) {
                ends.push_back(reason);
                if (!why.empty()) crashes.push_back(why);
              }};
  std::string console;
  Domain domain{config(), xen_pages(), guest, guest, timers};
  FakeCpu cpus[kVcpus] = {{memory, 0}, {memory, 1}};
  FakeCpu& cpu = cpus[0];

  SmallMachine() {
    domain.set_guest_calls(&guest);
    guest.set_domain(domain);
    const auto started = guest.start({address(100), address(kStack + 1), address(101), kL4});
    BH_ASSERT(started.has_value());
    guest.attention(cpu);
  }

  // From the kernel's `syscall` instruction; the answer.
  i64 call(u64 number, std::array<u64, 6> args = {}, unsigned vcpu = 0) {
    FakeCpu& c = cpus[vcpu];
    auto& g = c.gpr();
    g[Cpu::kRax] = number;
    g[Cpu::kRdi] = args[0], g[Cpu::kRsi] = args[1], g[Cpu::kRdx] = args[2];
    g[Cpu::kR10] = args[3], g[Cpu::kR8] = args[4], g[Cpu::kR9] = args[5];
    const u64 rip = c.rip();
    do {  // calls that take long go on by being made again
      c.rip() = rip;
      ++calls_made;
      guest.trap(c, {engine::Trap::Kind::kSyscall, 0, false, 0, 0, rip + 2});
    } while (c.rip() == rip && ends.empty());
    return static_cast<i64>(g[Cpu::kRax]);
  }
  template <class T>
  i64 op(u64 number, u64 command, T argument, unsigned vcpu = 0) {
    at<T>(kFirstFree) = argument;
    return call(number, {command, address(kFirstFree)}, vcpu);
  }
  i64 mmuext(unsigned command, u64 one, u64 two = 0) {
    struct mmuext_op op{};
    op.cmd = command;
    op.arg1.mfn = one;
    op.arg2.src_mfn = two;
    at<struct mmuext_op>(kFirstFree) = op;
    return call(__HYPERVISOR_mmuext_op, {address(kFirstFree), 1, 0, DOMID_SELF});
  }
  i64 mmu_update(u64 pointer, u64 value) {
    at<struct mmu_update>(kFirstFree) = {pointer, value};
    return call(__HYPERVISOR_mmu_update, {address(kFirstFree), 1, 0, DOMID_SELF});
  }
  void exception(u8 vector, std::optional<u32> error = {}, u64 at_address = 0, unsigned vcpu = 0) {
    FakeCpu& c = cpus[vcpu];
    guest.trap(c, {engine::Trap::Kind::kException, vector, error.has_value(), error.value_or(0), at_address, c.rip()});
  }
  void set_trap(u8 vector, u64 handler, u8 flags = 0) {
    auto* const list = &at<trap_info_t>(kFirstFree);
    list[0] = {vector, flags, FLAT_KERNEL_CS, handler};
    list[1] = {};
    call(__HYPERVISOR_set_trap_table, {address(kFirstFree)});
  }
  void set_callback(u16 type, u64 handler, u16 flags = 0) {
    op(__HYPERVISOR_callback_op, CALLBACKOP_register, callback_register_t{type, flags, handler});
  }
  // The words that the last bounce left on the kernel's stack.
  u64 pushed(unsigned index, unsigned vcpu = 0) {
    u64 word = 0;
    const bool read =
        cpus[vcpu].read(cpus[vcpu].gpr()[Cpu::kRsp] + index * 8, std::as_writable_bytes(std::span{&word, 1}));
    return read ? word : 0xdeadbeef;
  }
  u64 counter(Guest::Counter which) const { return guest.counters()[which].value(); }
  unsigned calls_made = 0;

 private:
  DomainConfig config() {
    DomainConfig c;
    c.kind = GuestKind::kPv;
    c.vcpus = kVcpus;
    c.guest_tsc = [this] { return timers.clock().now(); };
    c.console = [this](std::string_view text) { console += text; };
    c.steal_ns = [](unsigned) { return u64{0}; };
    return c;
  }
  XenPages xen_pages() {
    const auto pages = [this](u64 first, u64 count) {
      return std::span{memory.host(Gpa{first << kPageShift}, count << kPageShift), count << kPageShift};
    };
    return {pages(layout.shared_info, 1).data(), pages(layout.grant_frames, Layout::kGrantFrames),
            pages(layout.status_frames, Layout::kStatusFrames)};
  }
};

}  // namespace bulkhead::abi::xen::pv::testing
