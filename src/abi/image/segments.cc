#include "abi/image/segments.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/assert.h"
#include "base/bits.h"
#include "memory/pages.h"

namespace bulkhead::abi {
namespace {

// The program headers of a kernel lie in its first page; a bit more for unusual linkers.
constexpr u64 kHeadSize = 64_KiB;

// Zeroes guest memory and gives its pages back to the host where it can.
void clear(const GuestMemory& memory, Extent extent) {
  std::byte* const at = extent.size == 0 ? nullptr : memory.host(extent.start, extent.size);
  if (at == nullptr) return;
  const u64 lead = std::min(extent.size, align_up(extent.start.value, memory.piece()) - extent.start.value);
  const u64 whole = align_down(extent.size - lead, memory.piece());
  std::memset(at, 0, lead);
  if (whole > 0 && ::madvise(at + lead, whole, MADV_REMOVE) != 0) std::memset(at + lead, 0, whole);
  std::memset(at + lead + whole, 0, extent.size - lead - whole);
}

// Clears what of `scratch` no segment's bytes cover.
void clear_around(const GuestMemory& memory, Extent scratch, const ElfFile& elf) {
  std::vector<Extent> keep;
  for (const Segment& s : elf.loads)
    if (s.file_size > 0) keep.push_back({Gpa{s.paddr}, s.file_size});
  std::ranges::sort(keep, {}, &Extent::start);
  Gpa at = scratch.start;
  for (const Extent& extent : keep) {
    if (extent.start > at && at < scratch.end()) clear(memory, {at, std::min(extent.start, scratch.end()) - at});
    at = std::max(at, extent.end());
  }
  if (at < scratch.end()) clear(memory, {at, scratch.end() - at});
}

// Unpacked to where its first segment belongs, most of a kernel is in place at once and the rest need only move down,
// one segment after the other. That works if the segments ascend both in the file and in memory, without overlap, and
// none has to move up.
std::optional<Gpa> in_place_address(const ElfFile& elf, u64 size, const GuestMemory& memory) {
  const u64 base = elf.loads.front().paddr - elf.loads.front().file_offset;
  u64 file_end = 0, memory_end = 0;
  for (const Segment& s : elf.loads) {
    if (s.file_offset < file_end || s.paddr < memory_end || s.paddr > base + s.file_offset) return std::nullopt;
    file_end = s.file_offset + s.file_size;
    memory_end = s.paddr + s.file_size;
  }
  if (base < kFirmwareEnd.value || memory.host(Gpa{base}, size) == nullptr) return std::nullopt;
  return Gpa{base};
}

void move_segments(const ElfFile& elf, Gpa base, const GuestMemory& memory) {
  for (const Segment& s : elf.loads) {
    std::byte* const from = memory.host(base + s.file_offset, s.file_size);
    std::byte* const to = memory.host(Gpa{s.paddr}, s.file_size);
    BH_ASSERT(from != nullptr && to != nullptr);  // in_place_address() and check_segments_fit() said so
    if (from != to) std::memmove(to, from, s.file_size);
  }
}

std::optional<Gpa> scratch_address(const ElfFile& elf, u64 size, const GuestMemory& memory) {
  for (const RamRange& range : memory.ranges()) {
    if (range.size < size) continue;
    const Extent scratch{Gpa{align_down(range.start.value + range.size - size, kPageSize)}, size};
    if (scratch.start >= range.start && scratch.start >= kFirmwareEnd && !scratch.overlaps(extent_of(elf)))
      return scratch.start;
  }
  return std::nullopt;
}

Result<Extent> choose_scratch(const ElfFile& head, u64 size, const GuestMemory& memory) {
  if (const auto at = in_place_address(head, size, memory)) return Extent{*at, size};
  if (const auto at = scratch_address(head, size, memory)) return Extent{*at, size};
  return fail("too big for the zone's memory of {} MiB: unpacking it needs {}", memory.size() >> 20,
              memory_needed(align_up(extent_of(head).end().value + size, kPageSize)));
}

Result<ElfFile> peek(const SetupHeader& header, std::span<const std::byte> packed) {
  std::vector<std::byte> head(std::min(kHeadSize, header.unpacked_size));
  BH_ASSIGN(const u64 got, decompress_prefix(header.compression, packed, head));
  return parse_elf(MemorySource{std::span{head}.first(got), header.unpacked_size});
}

Result<ElfFile> load_unpacked(std::span<const std::byte> file, Extent scratch, const GuestMemory& memory) {
  const MemorySource source{file};
  BH_ASSIGN(ElfFile elf, parse_elf(source));
  BH_TRY(check_segments_fit(elf, memory));
  BH_TRY(read_xen_notes(source, elf));
  if (in_place_address(elf, scratch.size, memory))
    move_segments(elf, scratch.start, memory);
  else
    BH_TRY(copy_segments(source, elf, memory));
  return elf;
}
}  // namespace

std::string memory_needed(u64 end) {
  constexpr u64 kHoleStart = 0xC0000000, kHoleEnd = 4_GiB;
  if (end > kHoleEnd) end -= kHoleEnd - kHoleStart;
  return fmt::format("{} MiB", (end + 1_MiB - 1) / 1_MiB);
}

Extent extent_of(const ElfFile& elf) {
  u64 low = ~u64{0}, high = 0;
  for (const Segment& s : elf.loads) {
    low = std::min(low, s.paddr);
    high = std::max(high, s.paddr + s.memory_size);
  }
  return {Gpa{low}, high - low};
}

Result<void> check_segments_fit(const ElfFile& elf, const GuestMemory& memory) {
  constexpr Extent kOurs{kBootArea, kFirmwareEnd - kBootArea};
  for (const Segment& s : elf.loads) {
    if (Extent{Gpa{s.paddr}, s.memory_size}.overlaps(kOurs))
      return fail("wants to be loaded at {:#x} to {:#x}, where the machine keeps firmware tables ({:#x} to {:#x})",
                  s.paddr, s.paddr + s.memory_size, kOurs.start.value, kOurs.end().value);
    if (memory.host(Gpa{s.paddr}, s.memory_size) == nullptr)
      return fail("too big for the zone's memory of {} MiB: it is loaded at {:#x} to {:#x} and needs at least {}",
                  memory.size() >> 20, s.paddr, s.paddr + s.memory_size, memory_needed(s.paddr + s.memory_size));
  }
  return {};
}

Result<void> copy_segments(const ByteSource& source, const ElfFile& elf, const GuestMemory& memory) {
  memory.expect_use(extent_of(elf).start, extent_of(elf).size);
  for (const Segment& s : elf.loads) {
    if (s.file_size == 0) continue;
    std::byte* const to = memory.host(Gpa{s.paddr}, s.file_size);
    if (to == nullptr) return fail("a segment at {:#x} is outside of memory", s.paddr);
    BH_TRY(source.read(s.file_offset, {to, s.file_size}));
  }
  return {};
}

Result<ElfFile> load_payload(const ByteSource& source, const SetupHeader& header, const GuestMemory& memory) {
  BH_ASSIGN(const Pages packed, Pages::allocate(header.packed_size()));
  BH_TRY(source.read(header.payload_offset, packed.bytes()));
  BH_ASSIGN(const ElfFile head, peek(header, packed.bytes()));
  BH_TRY(check_segments_fit(head, memory));
  const Extent whole = extent_of(head);
  const u64 half = align_down(whole.size / 2, 2_MiB);  // what is unpacked last can wait
  memory.expect_use_soon(whole.start + half, whole.size - half);
  memory.expect_use(whole.start, half);
  BH_ASSIGN(const Extent scratch, choose_scratch(head, header.unpacked_size, memory));
  const std::span<std::byte> unpacked{memory.host(scratch.start, scratch.size), scratch.size};
  BH_TRY(decompress(header.compression, packed.bytes(), unpacked));
  BH_ASSIGN(ElfFile elf, load_unpacked(unpacked, scratch, memory));
  clear_around(memory, scratch, elf);
  return elf;
}

}  // namespace bulkhead::abi
