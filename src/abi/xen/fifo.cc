#include "abi/xen/fifo.h"

#include <atomic>

namespace bulkhead::abi::xen {
namespace {
constexpr u32 kPending = 1u << EVTCHN_FIFO_PENDING, kMasked = 1u << EVTCHN_FIFO_MASKED,
              kLinked = 1u << EVTCHN_FIFO_LINKED, kBusy = 1u << EVTCHN_FIFO_BUSY;

using Word = std::atomic_ref<event_word_t>;

// How often we try to link behind a word that changes under us. The guest changes PENDING and MASKED rarely and LINKED
// once, so an honest one never uses up the second round.
constexpr int kTries = 4;
}  // namespace

void Fifo::set_control_block(unsigned vcpu, evtchn_fifo_control_block_t* block) {
  queues_[vcpu].control = block;
  queues_[vcpu].tail.fill(0);
}

event_word_t* Fifo::word(u32 port) const {
  return port < ports() ? pages_[port / kWordsPerPage] + port % kWordsPerPage : nullptr;
}

// Puts `port` behind `tail` if that is still linked: the guest has not taken it out of its queue. While BUSY is set the
// guest does not take it.
bool Fifo::link_behind(u32 tail, u32 port) {
  event_word_t* const at = word(tail);
  if (at == nullptr) return false;
  Word tail_word{*at};
  for (int round = 0; round < 2; ++round) {
    u32 now = tail_word.load();
    for (int i = 0; i < kTries; ++i) {
      if (!(now & kLinked)) {
        if (round > 0) tail_word.fetch_and(~kBusy);
        return false;
      }
      const u32 linked = (now & ~(kBusy | EVTCHN_FIFO_LINK_MASK)) | port;
      if (tail_word.compare_exchange_strong(now, linked)) return true;
    }
    if (round == 0) tail_word.fetch_or(kBusy);
  }
  counters_[kFifoCorruptWords].add();
  tail_word.fetch_and(~kBusy);
  return true;  // the guest loses the event, which is its own doing
}

Fifo::Raised Fifo::raise(u32 port, unsigned vcpu, u8 priority, FifoPlace& last) {
  event_word_t* const at = word(port);
  if (at == nullptr) {
    counters_[kFifoMissingPages].add();
    return {Outcome::kNoWord, false};
  }
  Word own{*at};
  const u32 before = own.fetch_or(kPending);
  const Outcome outcome = before & kPending ? Outcome::kMerged : Outcome::kPending;
  Queues& queues = queues_[vcpu];
  if ((own.load() & (kMasked | kLinked)) != 0 || queues.control == nullptr) return {outcome, false};
  if (own.fetch_or(kLinked) & kLinked) return {outcome, false};
  // A port that was the tail of its old queue has been taken by the guest, so that queue is empty; its LINKED bit, set
  // anew, must not make it look otherwise.
  u32& old_tail = queues_[last.vcpu].tail[last.priority];
  if (old_tail == port) old_tail = 0;
  last = {static_cast<u8>(vcpu), priority};
  u32& tail = queues.tail[priority];
  const bool linked = tail != 0 && link_behind(tail, port);
  if (!linked) std::atomic_ref{queues.control->head[priority]}.store(port);
  tail = port;
  if (linked) return {outcome, false};
  const u32 ready = 1u << priority;
  return {outcome, (std::atomic_ref{queues.control->ready}.fetch_or(ready) & ready) == 0};
}

bool Fifo::unmask(u32 port) {
  event_word_t* const at = word(port);
  return at != nullptr && (Word{*at}.fetch_and(~kMasked) & kPending) != 0;
}

// Unlinking is left to the guest: it finds the word not pending.
void Fifo::clear_pending(u32 port) {
  if (event_word_t* const at = word(port)) Word{*at}.fetch_and(~kPending);
}

bool Fifo::pending(u32 port) const {
  event_word_t* const at = word(port);
  return at != nullptr && (Word{*at}.load() & kPending) != 0;
}

bool Fifo::masked(u32 port) const {
  event_word_t* const at = word(port);
  return at == nullptr || (Word{*at}.load() & kMasked) != 0;
}

}  // namespace bulkhead::abi::xen
