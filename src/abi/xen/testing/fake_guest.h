// A guest for tests: memory whose virtual addresses start at kBase and whose frames are numbered from kFirstFrame, and
// a Domain that believes in it.
#pragma once
#include <gtest/gtest.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/xen.h>

#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "abi/xen/domain.h"
#include "abi/xen/errors.h"
#include "base/fake_timers.h"

namespace bulkhead::abi::xen::testing {

class FakeGuest : public Frames, public Vcpus {
 public:
  static constexpr u64 kBase = 0xffff888000000000, kFirstFrame = 0x100, kFrames = 64;
  static constexpr unsigned kVcpus = 2;

  // ---- memory
  struct alignas(kPageSize) Page {
    std::byte bytes[kPageSize];
  };
  std::vector<Page> ram{kFrames};
  std::vector<Page> ours{1 + kGrantFrames + kStatusFrames};
  std::set<u64> gone;                // frames given back
  std::map<u64, std::byte*> placed;  // frames that show pages of ours
  std::map<u64, unsigned> written;   // note_written() by frame
  std::set<u64> tables;              // frames that may not be written
  std::multiset<std::pair<u64, Hold>> held;
  std::map<u64, std::pair<u64, u32>> shown;  // grants that the guest maps: frame and flags by address
  u64 replaced_by = 0;

  static u64 address(u64 page, u64 offset = 0) { return kBase + page * kPageSize + offset; }
  static u64 frame(u64 page) { return kFirstFrame + page; }
  template <class T>
  T& at(u64 page, u64 offset = 0) {
    return *reinterpret_cast<T*>(ram[page].bytes + offset);
  }
  bool access(u64 gva, u64 length) const {
    return gva >= kBase && length <= kFrames * kPageSize && gva - kBase <= kFrames * kPageSize - length;
  }

  // One for each vCPU.
  class Kernel final : public Caller {
   public:
    Kernel(FakeGuest& guest, unsigned index) : guest_{guest}, index_{index} {}
    unsigned vcpu() const override { return index_; }
    bool read(u64 gva, std::span<std::byte> out) override {
      if (!guest_.access(gva, out.size())) return false;
      std::memcpy(out.data(), guest_.ram[0].bytes + (gva - kBase), out.size());
      return true;
    }
    bool write(u64 gva, std::span<const std::byte> in) override {
      if (!guest_.access(gva, in.size())) return false;
      std::memcpy(guest_.ram[0].bytes + (gva - kBase), in.data(), in.size());
      return true;
    }

   private:
    FakeGuest& guest_;
    const unsigned index_;
  };
  Kernel kernels[kVcpus] = {{*this, 0}, {*this, 1}};

  // ---- Frames
  bool has(u64 f) const { return f >= kFirstFrame && f < kFirstFrame + kFrames && !gone.contains(f); }
  std::byte* hold(u64 f, Hold use) override {
    if (!has(f) || (use == Hold::kWrite && tables.contains(f))) return nullptr;
    held.insert({f, use});
    return ram[f - kFirstFrame].bytes;
  }
  void let_go(u64 f, Hold use) override {
    const auto one = held.find({f, use});
    ASSERT_NE(one, held.end());
    held.erase(one);
  }
  void note_written(u64 f) override { ++written[f]; }
  i64 place(u64 f, std::byte* page) override {
    if (f > 0xffff) return -kXEINVAL;
    placed[f] = page;
    return 0;
  }
  u64 frame_of(const std::byte* page) override { return 0x9000 + static_cast<u64>(page - ours[0].bytes) / kPageSize; }
  i64 release(u64 f) override {
    if (placed.erase(f) != 0) return 0;
    if (!has(f)) return -kXEINVAL;
    gone.insert(f);
    return 0;
  }
  i64 populate(u64& f) override {
    if (config.kind == GuestKind::kPv) {
      if (gone.empty()) return -kXENOMEM;
      f = *gone.begin();
    }
    return gone.erase(f) != 0 ? 0 : -kXEINVAL;
  }
  u64 current_pages() const override { return kFrames - gone.size(); }
  u64 maximum_pages() const override { return kFrames; }
  u64 maximum_frame() const override { return kFirstFrame + kFrames - 1; }
  i16 map_grant(Caller&, u64 f, u64 where, u32 flags) override {
    if (config.kind != GuestKind::kPv || !access(where, 1)) return GNTST_general_error;
    shown[where] = {f, flags};
    return GNTST_okay;
  }
  i16 unmap_grant(Caller&, u64 f, u64 where, u32, u64 replacement) override {
    const auto there = shown.find(where);
    if (there == shown.end() || there->second.first != f) return GNTST_general_error;
    shown.erase(there);
    replaced_by = replacement;
    return GNTST_okay;
  }

  // ---- Vcpus
  std::vector<unsigned> notified, nmis;
  std::vector<ShutdownReason> shutdowns;
  unsigned count() const override { return kVcpus; }
  void notify(unsigned vcpu) override { notified.push_back(vcpu); }
  void send_nmi(unsigned vcpu) override { nmis.push_back(vcpu); }
  i64 initialise(Caller&, unsigned, u64) override { return 0; }
  void shutdown(ShutdownReason reason) override { shutdowns.push_back(reason); }
  bool take_notice(unsigned vcpu) { return std::erase(notified, vcpu) != 0; }

  // ---- the Domain
  FakeTimerService timers;
  std::string console;
  u64 steal = 0;
  DomainConfig config = standard(GuestKind::kPvh);
  std::unique_ptr<Domain> domain;

  explicit FakeGuest(GuestKind kind = GuestKind::kPvh) {
    config = standard(kind);
    start();
  }
  DomainConfig standard(GuestKind kind) {
    DomainConfig c;
    c.kind = kind;
    c.vcpus = kVcpus;
    c.guest_tsc = [this] { return timers.clock().now(); };
    c.console = [this](std::string_view text) { console += text; };
    c.steal_ns = [this](unsigned) { return steal; };
    return c;
  }
  void start() {
    domain.reset();
    for (Page& page : ours) page = {};
    domain = std::make_unique<Domain>(config,
                                      XenPages{ours[0].bytes,
                                               {ours[1].bytes, kGrantFrames * kPageSize},
                                               {ours[1 + kGrantFrames].bytes, kStatusFrames * kPageSize}},
                                      *this, *this, timers);
  }
  shared_info_t& shared() { return *reinterpret_cast<shared_info_t*>(ours[0].bytes); }
  vcpu_info_t& info(unsigned vcpu) { return *reinterpret_cast<vcpu_info_t*>(domain->vcpu_info(vcpu)); }

  // ---- hypercalls
  Answer call(u64 number, std::array<u64, 6> args = {}, unsigned vcpu = 0) {
    return domain->hypercall(kernels[vcpu], number, args);
  }
  // With one structure as its argument, which lies in page 60.
  template <class T>
  i64 op(u64 number, u64 command, T& argument, u64 extra = 0, unsigned vcpu = 0) {
    at<T>(60) = argument;
    const i64 result = call(number, {command, address(60), extra}, vcpu).value;
    argument = at<T>(60);
    return result;
  }
  template <class T>
  i64 event_op(u64 command, T& argument) {
    return op(__HYPERVISOR_event_channel_op, command, argument);
  }
  template <class T>
  i64 event_op(u64 command, T&& argument) {
    return op(__HYPERVISOR_event_channel_op, command, argument);
  }
  template <class T>
  i64 grant_op(u64 command, T& argument, u64 count = 1) {
    return op(__HYPERVISOR_grant_table_op, command, argument, count);
  }
  template <class T>
  i64 vcpu_op(u64 command, unsigned target, T argument, unsigned vcpu = 0) {
    at<T>(60) = argument;
    return call(__HYPERVISOR_vcpu_op, {command, target, address(60)}, vcpu).value;
  }

  u32 unbound(u16 remote = 0) {
    evtchn_alloc_unbound_t arg{DOMID_SELF, remote, 0};
    return event_op(EVTCHNOP_alloc_unbound, arg) == 0 ? arg.port : 0;
  }
  u32 ipi(unsigned vcpu) {
    evtchn_bind_ipi_t arg{vcpu, 0};
    return event_op(EVTCHNOP_bind_ipi, arg) == 0 ? arg.port : 0;
  }
  i64 send(u32 port) { return event_op(EVTCHNOP_send, evtchn_send_t{port}); }
  i64 close(u32 port) { return event_op(EVTCHNOP_close, evtchn_close_t{port}); }
  u64 counter(std::string_view name) const {
    const telemetry::CounterSet& all = domain->counters();
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all.name(i) == name) return all[i].value();
    return ~u64{0};
  }
};

}  // namespace bulkhead::abi::xen::testing
