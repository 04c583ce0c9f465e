// What the vCPUs of one partition share.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/sync.h"
#include "engine/dbt/cpu/lapic.h"
#include "engine/engine.h"
#include "memory/guest_memory.h"

namespace bulkhead::engine::dbt {

class Cpu;

// Requests from one vCPU to another, taken at block boundaries before interrupts.
struct CodeRequest {
  enum class Kind : u8 { kDropWrites, kInvalidate } kind;
  u8 from;
  u16 size;  // kInvalidate: of what was written, on one page
  u64 gpa;   // kDropWrites: the page's
};

// The interrupt fabric (deliver_msi(), set_extint(), eoi_handler, extint_source, timers) is the LapicBus's.
class SharedState final : public LapicBus, public WriteObserver {
 public:
  SharedState(const PartitionConfig& config, GuestMemory& memory);
  ~SharedState() override;

  GuestMemory& memory;
  CpuModel cpu_model;
  std::vector<std::unique_ptr<Cpu>> cpus;

  // Host address of a guest-physical page, or nullptr when it is not RAM. GP registers only, any thread.
  std::byte* ram(u64 gpa) const;

  // Which vCPUs hold translations of code on a RAM page, and which may have a TLB entry that writes to it: one bit per
  // vCPU [any thread]. A vCPU sets and clears its own bit of `writers` only.
  struct PageUse {
    std::atomic<u8> code{0}, writers{0};
  };
  PageUse& page_use(u64 gpa);
  std::atomic<u8>& code_mask(u64 gpa) { return page_use(gpa).code; }
  static constexpr u8 mask_of(unsigned vcpu) { return static_cast<u8>(1u << vcpu); }
  // vCPU `self` is about to translate code from this page: marks it and makes every vCPU stop writing to it directly.
  void mark_code_page(Cpu& self, u64 gpa_page);
  // vCPU `self` is about to write (or has written) these bytes, which lie on one page that may have code: drops what it
  // made from them and asks the others to do so.
  void code_written(Cpu& self, u64 gpa, u64 size);
  // A device wrote to RAM: the same for every vCPU that has code there. Any thread.
  void written(Gpa at, u64 length) override;
  // Asks every vCPU but those in `but` to forget that it may write to this page directly. Any thread.
  void drop_writes_everywhere(u64 gpa_page, u64 but);
  // Carries out what others asked of `self`.
  void take_requests(Cpu& self);

  Mutex split_lock;  // serializes locked accesses that cannot be one host instruction

 private:
  void before_callout(unsigned index) override;
  void before_ipi(unsigned index) override;

  // Fixed room: whoever posts may have the guest's vector registers live, so nothing here allocates.
  struct Inbox {
    static constexpr unsigned kCapacity = 1024;
    static constexpr unsigned kBusy = 128;  // from here on whole pages go, each once
    FutexMutex mutex;
    std::array<CodeRequest, kCapacity> requests;
    unsigned count = 0;
    bool all_writes = false;        // overflow: drop every direct write to code
    bool all_translations = false;  // overflow: drop every translation
  };
  void post(unsigned to, CodeRequest request);
  bool is_busy(unsigned index);
  bool take_one(Inbox& inbox, CodeRequest& request);
  void drop_writes(Cpu& self, u64 gpa_page);
  void drop_all_writes(Cpu& self);
  void drop_translations(Cpu& self, u64 gpa, u64 size);
  void drop_all_translations(Cpu& self);
  std::vector<std::unique_ptr<Inbox>> inboxes_;
  std::vector<PageUse> page_uses_;  // per RAM page, by memfd offset; one more at the end for what is not RAM
};

}  // namespace bulkhead::engine::dbt
