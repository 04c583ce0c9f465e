#include "engine/dbt/cpu/shared.h"

#include "engine/dbt/cpu/cpu.h"

// A build without the option corrupts the guest's vector registers now and then, and nothing else would say so.
#if defined(__SSE2__) && !defined(__clang__)
#error "this folder must be compiled with general registers only"
#endif

namespace bulkhead::engine::dbt {

namespace {
LapicBus::Features lapic_features(const CpuModel& model) {
  const auto width = static_cast<u8>(model.lookup(0x80000008, 0).eax);
  return {.tsc_hz = model.tsc_hz != 0 ? model.tsc_hz : 1'000'000'000,
          .x2apic = model.has(1, 0, 'c', 21),
          .tsc_deadline = model.has(1, 0, 'c', 24),
          .physical_bits = width != 0 ? width : u8{36}};
}

}  // namespace

SharedState::SharedState(const PartitionConfig& config, GuestMemory& memory_in)
    : LapicBus{lapic_features(config.cpu_model)},
      memory{memory_in},
      cpu_model{config.cpu_model},
      page_uses_(memory_in.pages() + 1) {
  for (unsigned i = 0; i < config.vcpus; ++i) inboxes_.push_back(std::make_unique<Inbox>());
  memory.set_write_observer(this);
}

SharedState::~SharedState() { memory.set_write_observer(nullptr); }

std::byte* SharedState::ram(u64 gpa) const { return memory.host(Gpa{align_down(gpa, kPageSize)}, kPageSize); }

SharedState::PageUse& SharedState::page_use(u64 gpa) {
  const auto number = memory.page_number(Gpa{gpa});
  return number ? page_uses_[*number] : page_uses_.back();
}

void SharedState::before_callout(unsigned index) { cpus[index]->spill_fpu(); }

// A write that went straight to a page which meanwhile became somebody's code is found when its vCPU drops the TLB
// entry. That must be before it tells anybody, by an interrupt, that the new code is there.
void SharedState::before_ipi(unsigned index) {
  Cpu& self = *cpus[index];
  if (self.s.pending.load(std::memory_order_acquire) & kPendingInvalidate) take_requests(self);
}

void SharedState::mark_code_page(Cpu& self, u64 gpa_page) {
  const u8 before = code_mask(gpa_page).fetch_or(mask_of(self.index), std::memory_order_seq_cst);
  if (before != 0) return;  // everybody was told
  self.flush_tlb_write_entries_for(gpa_page);
  for (const auto& cpu : cpus)
    if (cpu.get() != &self)
      post(cpu->index, {CodeRequest::Kind::kDropWrites, static_cast<u8>(self.index), 0, gpa_page});
}

// The fence orders the caller's write before the look at the mask; a translator sets its bit before it reads the code.
// So either it sees the new bytes, or we see its bit. Whoever has much to do already loses its bit and the whole page,
// so that a page written word by word is posted once; what it translates before it takes the request is dropped with
// the rest.
void SharedState::code_written(Cpu& self, u64 gpa, u64 size) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const u64 page = align_down(gpa, kPageSize);
  std::atomic<u8>& mask = code_mask(page);
  const u8 holders = mask.load(std::memory_order_seq_cst);
  if (holders == 0) return;
  const auto from = static_cast<u8>(self.index);
  for (const auto& cpu : cpus) {
    const u8 bit = mask_of(cpu->index);
    if (cpu.get() == &self || !(holders & bit)) continue;
    if (!is_busy(cpu->index))
      post(cpu->index, {CodeRequest::Kind::kInvalidate, from, static_cast<u16>(size), gpa});
    else if (mask.fetch_and(static_cast<u8>(~bit), std::memory_order_seq_cst) & bit)
      post(cpu->index, {CodeRequest::Kind::kInvalidate, from, kPageSize, page});
  }
  if (holders & mask_of(self.index)) drop_translations(self, gpa, size);
}

void SharedState::written(Gpa at, u64 length) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (u64 page = align_down(at.value, kPageSize); page < at.value + length; page += kPageSize) {
    std::atomic<u8>& mask = code_mask(page);
    if (mask.load(std::memory_order_seq_cst) == 0) continue;
    const u8 holders = mask.exchange(0, std::memory_order_seq_cst);
    for (const auto& cpu : cpus)
      if (holders & mask_of(cpu->index))
        post(cpu->index, {CodeRequest::Kind::kInvalidate, static_cast<u8>(cpu->index), kPageSize, page});
  }
}

void SharedState::drop_writes_everywhere(u64 gpa_page, u64 but) {
  for (const auto& cpu : cpus)
    if (!bit(but, cpu->index))
      post(cpu->index, {CodeRequest::Kind::kDropWrites, static_cast<u8>(cpu->index), 0, gpa_page});
}

// Wakes nobody: a vCPU that sleeps takes its requests before it runs guest code again.
void SharedState::post(unsigned to, CodeRequest request) {
  Inbox& inbox = *inboxes_[to];
  {
    FutexLock lock{inbox.mutex};
    if (inbox.count < Inbox::kCapacity)
      inbox.requests[inbox.count++] = request;
    else if (request.kind == CodeRequest::Kind::kDropWrites)
      inbox.all_writes = true;
    else
      inbox.all_translations = true;
  }
  cpus[to]->s.pending.fetch_or(kPendingInvalidate, std::memory_order_seq_cst);
}

bool SharedState::is_busy(unsigned index) {
  Inbox& inbox = *inboxes_[index];
  FutexLock lock{inbox.mutex};
  return inbox.count >= Inbox::kBusy;
}

bool SharedState::take_one(Inbox& inbox, CodeRequest& request) {
  FutexLock lock{inbox.mutex};
  if (inbox.count == 0) return false;
  request = inbox.requests[--inbox.count];
  return true;
}

// Order among requests does not matter: each only forgets something.
void SharedState::take_requests(Cpu& self) {
  self.s.pending.fetch_and(~u32{kPendingInvalidate}, std::memory_order_seq_cst);
  Inbox& inbox = *inboxes_[self.index];
  bool all_writes, all_translations;
  {
    FutexLock lock{inbox.mutex};
    all_writes = std::exchange(inbox.all_writes, false);
    all_translations = std::exchange(inbox.all_translations, false);
  }
  CodeRequest request;
  while (take_one(inbox, request)) {
    if (request.kind == CodeRequest::Kind::kDropWrites)
      drop_writes(self, request.gpa);
    else
      drop_translations(self, request.gpa, request.size);
  }
  if (all_writes) drop_all_writes(self);
  if (all_translations) drop_all_translations(self);
}

// If we could write there directly, we may have done so after the page became code: its holders must look again.
void SharedState::drop_writes(Cpu& self, u64 gpa_page) {
  if ((page_use(gpa_page).writers.load(std::memory_order_relaxed) & mask_of(self.index)) == 0) return;
  bool had_entry = false;
  self.each_tlb_entry([&](const TlbEntry& entry) {
    if (entry.write_tag != kNoTag && align_down(entry.gpa_page, kPageSize) == gpa_page) had_entry = true;
  });
  if (!had_entry) return;
  self.flush_tlb_write_entries_for(gpa_page);
  code_written(self, gpa_page, kPageSize);
}

void SharedState::drop_all_writes(Cpu& self) {
  self.each_tlb_entry([&](TlbEntry& entry) {
    const u64 page = align_down(entry.gpa_page, kPageSize);
    const bool code = code_mask(page).load(std::memory_order_seq_cst) != 0;
    if (entry.write_tag == kNoTag || (!code && !self.deprivileged)) return;
    entry.write_tag = kNoTag;
    if (code) code_written(self, page, kPageSize);
  });
}

// The bit goes only where no translation is left: a page with code is written to the slow way until then.
void SharedState::drop_translations(Cpu& self, u64 gpa, u64 size) {
  if (self.code_observer && self.code_observer->code_written(gpa, size)) return;
  code_mask(gpa).fetch_and(static_cast<u8>(~mask_of(self.index)), std::memory_order_seq_cst);
}

// Slow, and rare: more than kCapacity code pages were written while this vCPU slept.
void SharedState::drop_all_translations(Cpu& self) {
  for (const RamRange& range : memory.ranges())
    for (u64 offset = 0; offset < range.size; offset += kPageSize)
      drop_translations(self, range.start.value + offset, kPageSize);
  for (u64 i = 0; i < memory.extra_pages(); ++i)
    if (const auto at = memory.extra_place(i)) drop_translations(self, at->value, kPageSize);
}

}  // namespace bulkhead::engine::dbt
