#include "abi/image/elf.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/bits.h"
#include "spec/elf.h"

namespace bulkhead::abi {
namespace {
namespace elf_spec = spec::elf;

constexpr unsigned kMaxProgramHeaders = 256;
constexpr u64 kMaxNoteBytes = 1_MiB;

std::string_view machine_name(u16 machine) {
  switch (machine) {
    case elf_spec::kMachineArm:
      return "arm";
    case elf_spec::kMachineAarch64:
      return "arm64";
    case elf_spec::kMachineRiscv:
      return "riscv";
    default:
      return "another machine";
  }
}

Result<Segment> check_segment(const Segment& segment, u64 size_of_file, unsigned index) {
  if (!range_within(segment.file_offset, segment.file_size, size_of_file))
    return fail("truncated: program header {} wants {} bytes at offset {:#x} of {} bytes", index, segment.file_size,
                segment.file_offset, size_of_file);
  if (segment.file_size > segment.memory_size)
    return fail("program header {} has more bytes in the file ({}) than in memory ({})", index, segment.file_size,
                segment.memory_size);
  if (segment.paddr + segment.memory_size < segment.paddr)
    return fail("program header {} wraps around the end of the address space", index);
  return segment;
}

template <class Header, class ProgramHeader>
Result<ElfFile> parse(const ByteSource& source) {
  BH_ASSIGN(const Header header, source.load<Header>(0));
  if (header.machine != elf_spec::kMachineX86_64 && header.machine != elf_spec::kMachine386)
    return fail("not an x86 kernel: its ELF header is for {} (machine {})", machine_name(header.machine),
                header.machine);
  if (header.phnum == 0) return fail("has no program headers: an object file or a library, not a kernel");
  if (header.phnum > kMaxProgramHeaders)
    return fail("has {} program headers, more than the {} that any kernel has", header.phnum, kMaxProgramHeaders);
  if (header.phentsize != sizeof(ProgramHeader))
    return fail("has program headers of {} bytes, not {}", header.phentsize, sizeof(ProgramHeader));
  if (!range_within(header.phoff, u64{header.phnum} * sizeof(ProgramHeader), source.size()))
    return fail("truncated: its program headers lie behind its end");
  ElfFile elf;
  elf.is_64 = sizeof(Header) == sizeof(elf_spec::Header64);
  elf.entry = header.entry;
  for (unsigned i = 0; i < header.phnum; ++i) {
    BH_ASSIGN(const ProgramHeader ph, source.load<ProgramHeader>(header.phoff + u64{i} * sizeof(ProgramHeader)));
    const bool load = ph.type == elf_spec::kSegmentLoad && ph.memsz > 0;
    if (!load && ph.type != elf_spec::kSegmentNote) continue;
    const u64 in_memory = load ? u64{ph.memsz} : u64{ph.filesz};
    BH_ASSIGN(const Segment segment,
              check_segment({ph.offset, ph.filesz, ph.paddr, ph.vaddr, in_memory}, source.size(), i));
    (load ? elf.loads : elf.notes).push_back(segment);
  }
  if (elf.loads.empty()) return fail("has nothing to load: an object file or debug information, not a kernel");
  return elf;
}

std::span<const std::byte> take(std::span<const std::byte>& from, u64 length) {
  const auto taken = from.first(length);
  from = from.subspan(std::min<u64>(from.size(), align_up(length, 4)));
  return taken;
}

Result<void> parse_notes(std::span<const std::byte> bytes, std::vector<XenNote>& notes) {
  while (bytes.size() >= sizeof(elf_spec::NoteHeader)) {
    elf_spec::NoteHeader header;
    std::memcpy(&header, take(bytes, sizeof header).data(), sizeof header);
    if (header.name_size > bytes.size()) return fail("has an ELF note whose name is longer than its segment");
    const auto name = take(bytes, header.name_size);
    if (header.value_size > bytes.size()) return fail("has an ELF note that is longer than its segment");
    const auto value = take(bytes, header.value_size);
    if (name.size() == 4 && std::memcmp(name.data(), "Xen", 4) == 0)
      notes.push_back({header.type, {value.begin(), value.end()}});
  }
  return {};
}
}  // namespace

std::optional<u32> ElfFile::pvh_entry() const {
  const auto address = xen_number(elf_spec::kXenNotePhys32Entry);
  if (!address || *address > 0xffffffff) return std::nullopt;
  return static_cast<u32>(*address);
}

std::optional<u64> ElfFile::xen_number(u32 type) const {
  for (const XenNote& note : xen_notes) {
    if (note.type != type || note.value.size() < sizeof(u32)) continue;
    u64 number = 0;
    std::memcpy(&number, note.value.data(), std::min(note.value.size(), sizeof number));
    return number;
  }
  return std::nullopt;
}

std::string_view ElfFile::xen_text(u32 type) const {
  for (const XenNote& note : xen_notes) {
    if (note.type != type) continue;
    const std::string_view text{reinterpret_cast<const char*>(note.value.data()), note.value.size()};
    return text.substr(0, text.find('\0'));
  }
  return {};
}

std::optional<u64> ElfFile::xen_pv_entry() const { return is_64 ? xen_number(elf_spec::kXenNoteEntry) : std::nullopt; }

std::optional<u64> ElfFile::physical_entry() const {
  for (const Segment& segment : loads)
    if (entry >= segment.paddr && entry - segment.paddr < segment.memory_size) return entry;
  for (const Segment& segment : loads)
    if (entry >= segment.vaddr && entry - segment.vaddr < segment.memory_size)
      return entry - segment.vaddr + segment.paddr;
  return std::nullopt;
}

Result<ElfFile> parse_elf(const ByteSource& source) {
  BH_ASSIGN(const elf_spec::Identity identity, source.load<elf_spec::Identity>(0));
  if (identity.magic != elf_spec::kMagic) return fail("not an ELF file");
  if (identity.data != elf_spec::kDataLittleEndian) return fail("not an x86 kernel: its ELF header is big-endian");
  switch (identity.file_class) {
    case elf_spec::kClass32:
      return parse<elf_spec::Header32, elf_spec::ProgramHeader32>(source);
    case elf_spec::kClass64:
      return parse<elf_spec::Header64, elf_spec::ProgramHeader64>(source);
    default:
      return fail("has an ELF class ({}) that is neither 32 nor 64 bits", identity.file_class);
  }
}

Result<void> read_xen_notes(const ByteSource& source, ElfFile& elf) {
  for (const Segment& segment : elf.notes) {
    if (segment.file_size > kMaxNoteBytes) return fail("has {} bytes of ELF notes: not a kernel", segment.file_size);
    std::vector<std::byte> bytes(segment.file_size);
    BH_TRY(source.read(segment.file_offset, bytes));
    BH_TRY(parse_notes(bytes, elf.xen_notes));
  }
  return {};
}

}  // namespace bulkhead::abi
