#include "engine/dbt/emit/builder.h"

#include <algorithm>
#include <cstddef>

#include "base/bits.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u32 kAllFlags = static_cast<u32>(kArithmeticFlags);
constexpr unsigned kLookAhead = 10;

bool ends_block(InsnKind kind) {
  switch (kind) {
    case InsnKind::kJump:
    case InsnKind::kJumpIndirect:
    case InsnKind::kCall:
    case InsnKind::kCallIndirect:
    case InsnKind::kRet:
    case InsnKind::kInterpretEnd:
      return true;
    default:
      return false;
  }
}

u64 branch_target(const Insn& insn, u64 rip) { return rip + insn.length + insn.imm; }

}  // namespace

BlockBuilder::BlockBuilder(Cpu& cpu, CodeCache& cache, CodeWriter& writer, const Thunks& thunks,
                           std::ptrdiff_t to_executable)
    : cpu_{cpu}, cache_{cache}, w_{writer}, thunks_{thunks}, to_executable_{to_executable} {}

Block* BlockBuilder::build(const BlockRequest& request) {
  request_ = request;
  full_ =
      w_.getSize() + kRoomForBlock > cache_.memory().size() || !cache_.has_room_for_descriptions(kRoomForDescription);
  if (full_) return nullptr;
  cache_.memory().prepare(w_.getSize() + kRoomForBlock);
  items_.clear();
  marks_.clear();
  watched_pages_.clear();
  reach_ = {};
  cold_.clear();
  crosses_page_ = ended_ = false;
  if (!decode_block(request)) return nullptr;
  find_live_flags();
  plan_windows();

  w_.align(16);
  start_ = w_.getCurr();
  flags_in_host_ = false;
  flags_in_memory_ = true;
  window_ = r8_window_ = 0;
  // The poll: flags are in memory at a block's start, so the compare costs nothing but itself.
  w_.cmp(Xbyak::util::dword[Xbyak::util::rsp + static_cast<u32>(offsetof(CpuState, pending))], 0);
  cold_.push_back({.kind = Cold::Kind::kLeave, .from = jump_later(kNotEqual), .leave_by = thunks_.exit_poll});
  const u8* const unpolled = w_.getCurr();
  // Most kernel code does without, and is not made to pay for loading and saving vector state around every exit.
  uses_vectors_ = std::ranges::any_of(
      items_, [](const Item& item) { return item.kind == InsnKind::kNative && uses_vector_unit(item.insn); });
  if (uses_vectors_) {
    w_.cmp(Xbyak::util::byte[Xbyak::util::rsp + static_cast<u32>(offsetof(CpuState, fpu_live))], 0);
    cold_.push_back({.kind = Cold::Kind::kLeave, .from = jump_later(kEqual), .leave_by = thunks_.exit_vectors});
  }
  for (const Item& item : items_) emit(item);
  if (!ended_) {
    keep_flags(items_.back().live_after);
    jump_to(end_rip_);
  }
  emit_cold();

  Block* const block = cache_.allocate_array<Block>(1);
  InsnMark* const marks = cache_.allocate_array<InsnMark>(marks_.size());
  std::ranges::copy(marks_, marks);
  *block = Block{.rip = request.rip,
                 .gpa = request.gpa,
                 .key = request.key,
                 .guest_size = static_cast<u16>(end_rip_ - request.rip),
                 .mark_count = static_cast<u16>(marks_.size()),
                 .code = start_ + to_executable_,
                 .unpolled = unpolled + to_executable_,
                 .code_size = static_cast<u32>(w_.getCurr() - start_),
                 .reach = reach_,
                 .valid = true,
                 .crosses_page = crosses_page_,
                 .second_gpa = second_gpa_,
                 .marks = marks,
                 .next_in_bucket = nullptr,
                 .incoming = nullptr};
  cache_.insert(block);
  for (const u64 page : watched_pages_) cache_.depend(*block, page);
  return block;
}

bool BlockBuilder::decode_block(const BlockRequest& request) {
  const u64 page = align_down(request.gpa, kPageSize);
  const u8* const bytes = reinterpret_cast<const u8*>(cpu_.shared.ram(page));
  if (bytes == nullptr) return false;
  cpu_.shared.mark_code_page(cpu_, page);
  u64 offset = request.gpa - page;
  u64 rip = request.rip;
  while (items_.size() < kMaxInstructions && offset < kPageSize) {
    Item item{};
    const Insn* insn = nullptr;
    const DecodeStatus status = decoded_.decode(bytes + offset, kPageSize - offset, code_version_, insn);
    if (status != DecodeStatus::kOk) {
      if (items_.empty() && status == DecodeStatus::kNeedMoreBytes) return decode_across_pages(request);
      break;
    }
    item.insn = *insn;
    item.kind = classify(item.insn);
    item.rip = rip;
    rip += item.insn.length;
    offset += item.insn.length;
    items_.push_back(item);
    if (ends_block(item.kind)) break;
  }
  end_rip_ = rip;
  reach_.add(request.gpa - page, offset);
  return !items_.empty();
}

// A block of one instruction whose bytes lie on two pages. Nothing links to it, so every entry looks its mapping up.
bool BlockBuilder::decode_across_pages(const BlockRequest& request) {
  const u64 first = align_down(request.gpa, kPageSize);
  const u64 have = first + kPageSize - request.gpa;
  const Cpu::Translation next = cpu_.walk(request.rip + have, Access::kExecute, request_.space == TlbSpace::kUser);
  if (!next.ok) return false;
  const u8* const head = reinterpret_cast<const u8*>(cpu_.shared.ram(first));
  const u64 second = align_down(next.gpa, kPageSize);
  const u8* const tail = reinterpret_cast<const u8*>(cpu_.shared.ram(second));
  if (head == nullptr || tail == nullptr) return false;
  cpu_.shared.mark_code_page(cpu_, second);
  std::array<u8, 30> bytes{};
  std::copy_n(head + (request.gpa - first), have, bytes.begin());
  std::copy_n(tail, 15, bytes.begin() + static_cast<std::ptrdiff_t>(have));
  Item item{};
  if (decode(CodeSize::k64, std::span{bytes}.first(15), item.insn) != DecodeStatus::kOk) return false;
  item.kind = classify(item.insn);
  item.rip = request.rip;
  items_.push_back(item);
  end_rip_ = request.rip + item.insn.length;
  reach_.add(request.gpa - first, kPageSize);
  crosses_page_ = true;
  second_gpa_ = second;
  return true;
}

void BlockBuilder::find_live_flags() {
  const Item& last = items_.back();
  u32 live = kAllFlags;
  if (!ends_block(last.kind))
    live = live_at(end_rip_);
  else if (last.kind == InsnKind::kJump || last.kind == InsnKind::kCall)
    live = live_at(branch_target(last.insn, last.rip));
  for (auto item = items_.rbegin(); item != items_.rend(); ++item) {
    const FlagEffect effect = flag_effect(item->insn, item->kind);
    item->live_after = live;
    if (item->kind == InsnKind::kJcc || item->kind == InsnKind::kJrcxz)
      live |= item->live_at_target = live_at(branch_target(item->insn, item->rip));
    live = (live & ~effect.kills) | effect.reads;
    item->live_before = live;
  }
}

const u8* BlockBuilder::code_bytes(u64 rip, unsigned& available) {
  u64 gpa = 0;
  if (on_own_page(rip)) {
    gpa = align_down(request_.gpa, kPageSize) | (rip & (kPageSize - 1));
  } else {
    const Cpu::Translation there = cpu_.walk(rip, Access::kExecute, request_.space == TlbSpace::kUser, true);
    if (!there.ok) return nullptr;
    gpa = there.gpa;
  }
  const u64 page = align_down(gpa, kPageSize);
  const std::byte* const bytes = cpu_.shared.ram(page);
  if (bytes == nullptr) return nullptr;
  if (page != align_down(request_.gpa, kPageSize)) {
    if (watched_pages_.size() >= 4 && std::ranges::find(watched_pages_, page) == watched_pages_.end()) return nullptr;
    if (std::ranges::find(watched_pages_, page) == watched_pages_.end()) watched_pages_.push_back(page);
    cpu_.shared.mark_code_page(cpu_, page);
  }
  available = static_cast<unsigned>(kPageSize - (gpa - page));
  return reinterpret_cast<const u8*>(bytes) + (gpa - page);
}

// Remembered by where the code lies, as long as no code changes, where the answer did not come from other pages.
u32 BlockBuilder::live_at(u64 rip) {
  unsigned available = 0;
  const u8* const bytes = code_bytes(rip, available);
  if (bytes == nullptr) return kAllFlags;
  Liveness& known = liveness_[reinterpret_cast<u64>(bytes) % kLivenessEntries];
  if (known.code == bytes && known.version == code_version_) {
    if (on_own_page(rip)) reach_.add(known.seen);
    return known.live;
  }
  bool one_page = true;
  Reach seen;
  const u32 live = look_ahead(rip, bytes, available, one_page, seen);
  if (one_page) known = {bytes, live, code_version_, seen};
  return live;
}

// `seen` is right if it was all on one page.
u32 BlockBuilder::look_ahead(u64 rip, const u8* bytes, unsigned available, bool& one_page, Reach& seen) {
  u32 live = 0, killed = 0;
  const auto answer = [&] { return live | (kAllFlags & ~killed); };
  unsigned offset = 0;
  for (unsigned steps = 0; steps < kLookAhead; ++steps) {
    if (offset >= available) return answer();
    const Insn* next = nullptr;
    if (decoded_.decode(bytes + offset, available - offset, code_version_, next) != DecodeStatus::kOk) return answer();
    const Insn& insn = *next;
    const u64 at = (rip + offset) % kPageSize;
    seen.add(at, at + insn.length);
    if (on_own_page(rip)) reach_.add(at, at + insn.length);
    const InsnKind kind = classify(insn);
    const FlagEffect effect = flag_effect(insn, kind);
    live |= effect.reads & ~killed;
    killed |= effect.kills;
    if (((live | killed) & kAllFlags) == kAllFlags) return live;
    offset += insn.length;
    if (kind == InsnKind::kJump) {
      const u64 target = rip + offset + insn.imm;
      one_page = one_page && align_down(target, kPageSize) == align_down(rip, kPageSize);
      rip = target;
      offset = 0;
      bytes = code_bytes(rip, available);
      if (bytes == nullptr) return answer();
    } else if (ends_block(kind) || kind == InsnKind::kJcc || kind == InsnKind::kJrcxz) {
      return answer();
    }
  }
  return answer();
}

void BlockBuilder::emit(const Item& item) {
  mark(item);
  switch (item.kind) {
    case InsnKind::kNative:
      emit_native(item);
      break;
    case InsnKind::kNothing:
      break;
    case InsnKind::kLea:
      emit_lea(item);
      break;
    case InsnKind::kBitMemory:
      emit_bit_memory(item);
      break;
    case InsnKind::kPush:
      emit_push(item);
      break;
    case InsnKind::kPushFlags:
      emit_push_flags(item);
      break;
    case InsnKind::kMovFromSegment:
      emit_mov_from_segment(item);
      break;
    case InsnKind::kPop:
      emit_pop(item);
      break;
    case InsnKind::kLeave:
      emit_leave(item);
      break;
    case InsnKind::kJump:
      keep_flags(item.live_after);
      jump_to(branch_target(item.insn, item.rip));
      ended_ = true;
      break;
    case InsnKind::kJumpIndirect:
      emit_jump_indirect(item);
      break;
    case InsnKind::kJcc:
      emit_jcc(item);
      break;
    case InsnKind::kJrcxz:
      emit_jrcxz(item);
      break;
    case InsnKind::kCall:
      emit_call(item);
      break;
    case InsnKind::kCallIndirect:
      emit_call_indirect(item);
      break;
    case InsnKind::kRet:
      emit_ret(item);
      break;
    case InsnKind::kCli:
      emit_cli(item);
      break;
    case InsnKind::kInterpret:
      emit_interpret(item);
      break;
    case InsnKind::kSti:
      if (&item != &items_.back()) {
        emit_interpret(item);
        break;
      }
      [[fallthrough]];
    case InsnKind::kInterpretEnd:
      emit_interpret(item);
      // An instruction that did not change anything after all (a LOOP not taken, say) goes on behind itself.
      jump_to(item.rip + item.insn.length);
      ended_ = true;
      break;
  }
}

void BlockBuilder::mark(const Item& item) {
  marks_.push_back({static_cast<u32>(w_.getCurr() - start_), static_cast<u16>(item.rip - request_.rip), 0});
}

}  // namespace bulkhead::engine::dbt
