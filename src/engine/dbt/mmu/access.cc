// Every load and store by linear address. Accesses that cross a page have both pages judged before anything is written.
#include "engine/dbt/cpu/cpu.h"
#include "engine/dbt/cpu/host_copy.h"
#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {
namespace {

constexpr u64 kPageMask = ~u64{0xfff};
// One page for both the first and the last byte, and it is the tag's.
bool hits(u64 tag, u64 linear, unsigned size) {
  return tag == (linear & kPageMask) && (linear & 0xfff) + size <= kPageSize;
}
// The largest power of two up to 8 that fits.
unsigned mmio_piece(unsigned length) { return length >= 8 ? 8 : length >= 4 ? 4 : length >= 2 ? 2 : 1; }

}  // namespace

u64 Cpu::next_page(u64 linear) const {
  const u64 next = (linear & kPageMask) + kPageSize;
  return long_mode() ? next : next & 0xffffffff;
}

Cpu::Piece Cpu::resolve(TlbSpace space, u64 linear, Access access) {
  const TlbEntry& entry = s.tlb[static_cast<unsigned>(space)][tlb_slot(linear)];
  if ((access == Access::kWrite ? entry.write_tag : entry.read_tag) == (linear & kPageMask))
    return {reinterpret_cast<std::byte*>(entry.addend + linear), (entry.gpa_page & kPageMask) | (linear & 0xfff),
            false};
  if (access == Access::kWrite && (linear & kPageMask) == redirect_linear) [[unlikely]]
    return {redirect_host + (linear & 0xfff), 0, false};
  const Translation t = walk_in(linear, access, space, false);
  if (!t.ok) raise_page_fault(linear, t.error);
  if (owes_settling(space, linear)) [[unlikely]]
    settle_direct_writes();
  return fill_entry(space, linear, access, t);
}

void Cpu::read_piece(const Piece& piece, std::byte* out, unsigned length) {
  if (piece.host != nullptr) return host_copy(out, piece.host, length);
  for (unsigned done = 0; done < length;) {
    const unsigned size = mmio_piece(length - done);
    host_store(out + done, size, mmio_load(piece.gpa + done, size));
    done += size;
  }
}

void Cpu::write_piece(const Piece& piece, const std::byte* in, unsigned length) {
  if (piece.host != nullptr) {
    host_copy(piece.host, in, length);
    if (piece.code) shared.code_written(*this, piece.gpa, length);
    return;
  }
  for (unsigned done = 0; done < length;) {
    const unsigned size = mmio_piece(length - done);
    mmio_store(piece.gpa + done, size, host_load(in + done, size));
    done += size;
  }
}

u64 Cpu::load_slow(TlbSpace space, u64 linear, unsigned size) {
  const unsigned first = static_cast<unsigned>(kPageSize - (linear & 0xfff));
  const Piece piece = resolve(space, linear, Access::kRead);
  if (size <= first) return piece.host != nullptr ? host_load(piece.host, size) : mmio_load(piece.gpa, size);
  const Piece rest = resolve(space, next_page(linear), Access::kRead);
  alignas(8) std::byte buffer[16];
  read_piece(piece, buffer, first);
  read_piece(rest, buffer + first, size - first);
  return host_load(buffer, size);
}

void Cpu::store_slow(TlbSpace space, u64 linear, unsigned size, u64 value) {
  const unsigned first = static_cast<unsigned>(kPageSize - (linear & 0xfff));
  const Piece piece = resolve(space, linear, Access::kWrite);
  if (size <= first) {
    if (piece.host == nullptr) return mmio_store(piece.gpa, size, value);
    host_store(piece.host, size, value);
    if (piece.code) shared.code_written(*this, piece.gpa, size);
    return;
  }
  const Piece rest = resolve(space, next_page(linear), Access::kWrite);
  alignas(8) std::byte buffer[8];
  host_store(buffer, size, value);
  write_piece(piece, buffer, first);
  write_piece(rest, buffer + first, size - first);
}

// The host address of memory that can be read without a fault, or nullptr if that is not known at once.
const void* Cpu::at_hand(TlbSpace space, u64 linear, unsigned size) const {
  const TlbEntry& entry = s.tlb[static_cast<unsigned>(space)][tlb_slot(linear)];
  return hits(entry.read_tag, linear, size) ? reinterpret_cast<const void*>(entry.addend + linear) : nullptr;
}

u64 Cpu::load_in(TlbSpace space, u64 linear, unsigned size) {
  const TlbEntry& entry = s.tlb[static_cast<unsigned>(space)][tlb_slot(linear)];
  if (hits(entry.read_tag, linear, size)) [[likely]]
    return host_load(reinterpret_cast<const void*>(entry.addend + linear), size);
  return load_slow(space, linear, size);
}

void Cpu::store_in(TlbSpace space, u64 linear, unsigned size, u64 value) {
  const TlbEntry& entry = s.tlb[static_cast<unsigned>(space)][tlb_slot(linear)];
  if (hits(entry.write_tag, linear, size)) [[likely]]
    return host_store(reinterpret_cast<void*>(entry.addend + linear), size, value);
  store_slow(space, linear, size, value);
}

u64 Cpu::load(u64 linear, unsigned size) {
  const u64 value = load_in(s.tlb_space, linear, size);
  if (data_breakpoints_) [[unlikely]]
    note_data_access(linear, size, Access::kRead);
  return value;
}

void Cpu::store(u64 linear, unsigned size, u64 value) {
  store_in(s.tlb_space, linear, size, value);
  if (data_breakpoints_) [[unlikely]]
    note_data_access(linear, size, Access::kWrite);
}

void Cpu::load_bytes(u64 linear, void* out, unsigned length) {
  if (length == 0) return;
  const unsigned first = static_cast<unsigned>(kPageSize - (linear & 0xfff));
  const Piece piece = resolve(s.tlb_space, linear, Access::kRead);
  if (length <= first) {
    read_piece(piece, static_cast<std::byte*>(out), length);
  } else {
    const Piece rest = resolve(s.tlb_space, next_page(linear), Access::kRead);
    read_piece(piece, static_cast<std::byte*>(out), first);
    read_piece(rest, static_cast<std::byte*>(out) + first, length - first);
  }
  if (data_breakpoints_) [[unlikely]]
    note_data_access(linear, length, Access::kRead);
}

void Cpu::store_bytes(u64 linear, const void* in, unsigned length) {
  if (length == 0) return;
  const unsigned first = static_cast<unsigned>(kPageSize - (linear & 0xfff));
  const Piece piece = resolve(s.tlb_space, linear, Access::kWrite);
  if (length <= first) {
    write_piece(piece, static_cast<const std::byte*>(in), length);
  } else {
    const Piece rest = resolve(s.tlb_space, next_page(linear), Access::kWrite);
    write_piece(piece, static_cast<const std::byte*>(in), first);
    write_piece(rest, static_cast<const std::byte*>(in) + first, length - first);
  }
  if (data_breakpoints_) [[unlikely]]
    note_data_access(linear, length, Access::kWrite);
}

// Tables and task state that are not RAM read as all ones and swallow writes: an exit there could not be completed.
u64 Cpu::load_system(u64 linear, unsigned size) {
  const bool outer = no_exit_;
  no_exit_ = true;
  const u64 value = load_in(system_space(), long_mode() ? linear : linear & 0xffffffff, size);
  no_exit_ = outer;
  return value;
}

void Cpu::store_system(u64 linear, unsigned size, u64 value) {
  const bool outer = no_exit_;
  no_exit_ = true;
  store_in(system_space(), long_mode() ? linear : linear & 0xffffffff, size, value);
  no_exit_ = outer;
}

void* Cpu::atomic_host(u64 linear, unsigned size) {
  if ((linear & 0xfff) + size > kPageSize) return nullptr;
  const Piece piece = resolve(s.tlb_space, linear, Access::kWrite);
  // The write happens after we return: what was translated from the page until instruction_done() is dropped then.
  if (piece.code) {
    atomic_code_page_ = piece.gpa & kPageMask;
    shared.code_written(*this, atomic_code_page_, kPageSize);
  }
  if (piece.host != nullptr && data_breakpoints_) [[unlikely]]
    note_data_access(linear, size, Access::kWrite);
  return piece.host;
}

void Cpu::finish_atomic() {
  const u64 page = atomic_code_page_;
  atomic_code_page_ = ~u64{0};
  if (shared.code_mask(page).load(std::memory_order_acquire) != 0) shared.code_written(*this, page, kPageSize);
}

void Cpu::probe_write(u64 linear, unsigned size) {
  if (size == 0) return;
  resolve(s.tlb_space, linear, Access::kWrite);
  for (u64 done = kPageSize - (linear & 0xfff), at = next_page(linear); done < size;
       done += kPageSize, at = next_page(at))
    resolve(s.tlb_space, at, Access::kWrite);
}

}  // namespace bulkhead::engine::dbt
