#include "machine/microvm/pvh_frames.h"

#include <xen/grant_table.h>

#include <algorithm>

#include "abi/xen/errors.h"

namespace bulkhead::machine {
using namespace abi::xen;

namespace {
constexpr u64 kFrameLimit = u64{1} << (46 - kPageShift);
constexpr Gpa gpa_of(u64 frame) { return {frame << kPageShift}; }
}  // namespace

PvhFrames::PvhFrames(GuestMemory& memory, Gpa devices)
    : memory_{memory},
      devices_{devices},
      gone_(memory.size() / kPageSize / 64 + 1),
      pages_{memory.size() / kPageSize} {}

bool PvhFrames::in_ram(u64 frame) const {
  return frame < kFrameLimit &&
         std::ranges::any_of(
             memory_.ranges(), [&](const RamRange& range) { return range.contains(gpa_of(frame), kPageSize); });
}

std::byte* PvhFrames::hold(u64 frame, Hold) {
  if (!in_ram(frame) || memory_.extra_at(gpa_of(frame))) return nullptr;
  return gone(*memory_.page_number(gpa_of(frame))) ? nullptr : memory_.host(gpa_of(frame), kPageSize);
}

void PvhFrames::note_written(u64 frame) {
  if (frame < kFrameLimit) memory_.note_written(gpa_of(frame), kPageSize);
}

bool PvhFrames::may_hold_ours(u64 frame) const {
  return frame < kFrameLimit && (gpa_of(frame) < devices_ || gpa_of(frame) >= Gpa{4_GiB} || in_ram(frame));
}

i64 PvhFrames::place(u64 frame, std::byte* page) {
  const auto number = memory_.extra_number(page);
  if (!number || !may_hold_ours(frame)) return -kXEINVAL;
  if (!memory_.place_extra(*number, gpa_of(frame))) return -kXEBUSY;
  note_written(frame);
  return 0;
}

u64 PvhFrames::frame_of(const std::byte* our_page) {
  const auto number = memory_.extra_number(our_page);
  const auto at = number ? memory_.extra_place(*number) : std::nullopt;
  return at ? at->value >> kPageShift : ~u64{0};
}

// A page of ours that leaves takes nothing with it but the guest's view of it.
i64 PvhFrames::release(u64 frame) {
  if (frame >= kFrameLimit) return -kXEINVAL;
  if (const auto ours = memory_.extra_at(gpa_of(frame))) {
    memory_.remove_extra(*ours);
    note_written(frame);
    return 0;
  }
  if (!in_ram(frame)) return -kXEINVAL;
  const u64 number = *memory_.page_number(gpa_of(frame)), bit = u64{1} << number % 64;
  if (word(number).fetch_or(bit) & bit) return -kXEINVAL;
  pages_.fetch_sub(1, std::memory_order_relaxed);
  memory_.discard(gpa_of(frame), kPageSize);
  note_written(frame);
  return 0;
}

// What the guest wrote there while it had no page there is not to be found again.
i64 PvhFrames::populate(u64& frame) {
  if (!in_ram(frame) || memory_.extra_at(gpa_of(frame))) return -kXEINVAL;
  const u64 number = *memory_.page_number(gpa_of(frame)), bit = u64{1} << number % 64;
  if (!gone(number)) return -kXEINVAL;
  memory_.discard(gpa_of(frame), kPageSize);
  note_written(frame);
  if (!(word(number).fetch_and(~bit) & bit)) return -kXEINVAL;
  pages_.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

i16 PvhFrames::map_grant(Caller&, u64, u64, u32) { return GNTST_general_error; }
i16 PvhFrames::unmap_grant(Caller&, u64, u64, u32, u64) { return GNTST_general_error; }

u64 PvhFrames::maximum_frame() const {
  const RamRange& last = memory_.ranges().back();
  return ((last.start.value + last.size) >> kPageShift) - 1;
}

}  // namespace bulkhead::machine
