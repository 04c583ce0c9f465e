// Executable and Linkable Format: the few fields that a loader reads [elf "ELF Header", "Program Header", "Note
// Section"].
#pragma once
#include "base/ints.h"

namespace bulkhead::spec::elf {

inline constexpr u32 kMagic = 0x464c457f;  // 0x7f 'E' 'L' 'F'
inline constexpr u8 kClass32 = 1, kClass64 = 2;
inline constexpr u8 kDataLittleEndian = 1;
inline constexpr u16 kMachine386 = 3, kMachineX86_64 = 62, kMachineArm = 40, kMachineAarch64 = 183, kMachineRiscv = 243;
inline constexpr u32 kSegmentLoad = 1, kSegmentNote = 4;

struct Identity {
  u32 magic;
  u8 file_class, data, version, abi, abi_version;
  u8 padding[7];
};
static_assert(sizeof(Identity) == 16);

struct Header32 {
  Identity identity;
  u16 type, machine;
  u32 version, entry, phoff, shoff, flags;
  u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct Header64 {
  Identity identity;
  u16 type, machine;
  u32 version;
  u64 entry, phoff, shoff;
  u32 flags;
  u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct ProgramHeader32 {
  u32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
struct ProgramHeader64 {
  u32 type, flags;
  u64 offset, vaddr, paddr, filesz, memsz, align;
};
struct NoteHeader {  // followed by the name and the value, each padded to 4 bytes
  u32 name_size, value_size, type;
};
static_assert(sizeof(Header32) == 52 && sizeof(Header64) == 64);
static_assert(sizeof(ProgramHeader32) == 32 && sizeof(ProgramHeader64) == 56 && sizeof(NoteHeader) == 12);

// Notes named "Xen" [xen/include/public/elfnote.h].
inline constexpr u32 kXenNoteEntry = 1, kXenNoteHypercallPage = 2, kXenNoteVirtBase = 3, kXenNotePaddrOffset = 4,
                     kXenNoteFeatures = 10, kXenNoteInitP2m = 15, kXenNoteModStartPfn = 16, kXenNotePhys32Entry = 18;

}  // namespace bulkhead::spec::elf
