// What the vCPUs of one partition share.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/sync.h"
#include "engine/engine.h"
#include "memory/guest_memory.h"

namespace bulkhead::engine::dbt {

class Cpu;

// Requests from one vCPU to another, taken at block boundaries before interrupts.
struct CodeRequest {
  enum class Kind : u8 { kDropWrites, kInvalidate } kind;
  u64 gpa_page;
  u8 from;
};

class SharedState {
 public:
  SharedState(const PartitionConfig& config, GuestMemory& memory);

  GuestMemory& memory;
  CpuModel cpu_model;
  std::vector<std::unique_ptr<Cpu>> cpus;

  // Host address of a guest-physical page, or nullptr when it is not RAM. GP registers only, any thread.
  std::byte* ram(u64 gpa) const;

  // Which vCPUs hold translations of code on a RAM page: one bit per vCPU [any thread].
  std::atomic<u8>& code_mask(u64 gpa);
  // vCPU `self` is about to translate code from this page: marks it and makes every vCPU stop writing to it directly.
  void mark_code_page(Cpu& self, u64 gpa_page);
  // vCPU `self` is about to write to (or has written) a page that has code: drops its own and asks the others to drop theirs.
  void code_page_written(Cpu& self, u64 gpa_page);
  // Carries out what others asked of `self`.
  void take_requests(Cpu& self);

  // Interrupt fabric.
  void deliver_msi(Msi message);                        // any thread
  std::function<void(u8)> eoi_handler;
  ExtIntSource* extint_source = nullptr;
  std::atomic<bool> extint_asserted{false};

  Mutex split_lock;  // serializes locked accesses that cannot be one host instruction

 private:
  struct Inbox {
    Mutex mutex;
    std::vector<CodeRequest> requests;
    bool everything = false;  // overflow: drop all
  };
  void post(unsigned to, CodeRequest request);
  std::vector<std::unique_ptr<Inbox>> inboxes_;
  std::vector<std::atomic<u8>> code_masks_;  // per RAM page, by memfd offset
};

}  // namespace bulkhead::engine::dbt
