// ELF kernels: program headers and Xen notes, checked.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "abi/image/byte_source.h"

namespace bulkhead::abi {

// Bytes [file_offset, +file_size) go to guest-physical paddr; memory up to memory_size behind them is zero.
// 0 <= file_size <= memory_size; nothing wraps; the file range lies inside the file.
struct Segment {
  u64 file_offset = 0, file_size = 0;
  u64 paddr = 0, vaddr = 0, memory_size = 0;
};

struct XenNote {
  u32 type = 0;
  std::vector<std::byte> value;
};

struct ElfFile {
  bool is_64 = false;
  u64 entry = 0;               // as in the header: physical for kernels, but see physical_entry()
  std::vector<Segment> loads;  // at least one, as the file orders them, without empty ones
  std::vector<Segment> notes;
  std::vector<XenNote> xen_notes;  // after read_xen_notes()

  // The number in a Xen note of 4 or 8 bytes; nothing: no such note, or it is not a number.
  std::optional<u64> xen_number(u32 type) const;
  // The text in a Xen note, as far as its end; empty: no such note.
  std::string_view xen_text(u32 type) const;
  // The address of the PVH entry (note 18), if there is one.
  std::optional<u32> pvh_entry() const;
  // The virtual address of the Xen PV entry (note 1), if there is one in a 64-bit file.
  std::optional<u64> xen_pv_entry() const;
  // `entry`, translated if it is a virtual address of a segment. Nothing if it lies in no segment.
  std::optional<u64> physical_entry() const;
};

// The headers. `available` bytes of the source may be less than its size: only what is needed is read.
// Errors: truncated, not x86, not an executable layout that can be loaded.
Result<ElfFile> parse_elf(const ByteSource& source);

// Fills elf.xen_notes from the note segments. Malformed notes are an error; notes of other owners are skipped.
Result<void> read_xen_notes(const ByteSource& source, ElfFile& elf);

}  // namespace bulkhead::abi
