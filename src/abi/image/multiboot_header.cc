#include "abi/image/multiboot_header.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/bits.h"

namespace bulkhead::abi {
namespace {
namespace mb = spec::multiboot;
constexpr u64 kShortHeader = 12;  // without addresses
}  // namespace

std::optional<MultibootHeader> find_multiboot_header(const ByteSource& source) {
  std::array<std::byte, mb::kHeaderSearch> head{};
  const u64 size = std::min<u64>(head.size(), source.size());
  if (!source.read(0, std::span{head}.first(size))) return std::nullopt;
  for (u64 at = 0; at + kShortHeader <= size; at += 4) {
    MultibootHeader found;
    std::memcpy(&found.fields, head.data() + at, kShortHeader);
    if (found.fields.magic != mb::kHeaderMagic) continue;
    if (found.fields.magic + found.fields.flags + found.fields.checksum != 0) continue;
    found.offset = at;
    if (found.has_addresses()) {
      if (size - at < sizeof found.fields) continue;
      std::memcpy(&found.fields, head.data() + at, sizeof found.fields);
    }
    return found;
  }
  return std::nullopt;
}

Result<void> check_multiboot_flags(const MultibootHeader& header) {
  const u32 unknown = header.fields.flags & mb::kMandatoryMask & ~(mb::kAlignModules | mb::kWantMemory);
  if (unknown != 0) return fail("its Multiboot header demands features that are not there (flags {:#x})", unknown);
  return {};
}

Result<ElfFile> multiboot_raw_layout(const ByteSource& source, const MultibootHeader& header) {
  const mb::Header& f = header.fields;
  if (f.load_address > f.header_address || f.header_address - f.load_address > header.offset)
    return fail("its Multiboot header loads from before the file's beginning");
  Segment segment;
  segment.file_offset = header.offset - (f.header_address - f.load_address);
  segment.paddr = segment.vaddr = f.load_address;
  if (f.load_end != 0 && f.load_end < f.load_address)
    return fail("its Multiboot header ends its load before it begins");
  segment.file_size = f.load_end == 0 ? source.size() - segment.file_offset : f.load_end - f.load_address;
  if (!range_within(segment.file_offset, segment.file_size, source.size()))
    return fail("truncated: its Multiboot header loads {} bytes from offset {:#x}, but it has only {} bytes",
                segment.file_size, segment.file_offset, source.size());
  const u64 load_end = segment.paddr + segment.file_size;
  if (f.bss_end != 0 && f.bss_end < load_end) return fail("its Multiboot header ends its bss before its data");
  segment.memory_size = std::max<u64>(load_end, f.bss_end) - segment.paddr;
  if (segment.memory_size == 0) return fail("its Multiboot header loads nothing");
  ElfFile layout;
  layout.entry = f.entry;
  layout.loads.push_back(segment);
  return layout;
}

}  // namespace bulkhead::abi
