// Kernel files made to order: ELF with segments and Xen notes, bzImages around them in every compression.
#pragma once
#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "abi/image/decompress.h"
#include "base/assert.h"
#include "base/bits.h"
#include "spec/elf.h"
#include "spec/linux_boot.h"
#include "spec/multiboot.h"

namespace bulkhead::testing {

using ImageBytes = std::vector<std::byte>;

template <class T>
void put(ImageBytes& to, u64 offset, const T& value) {
  if (to.size() < offset + sizeof value) to.resize(offset + sizeof value);
  std::memcpy(to.data() + offset, &value, sizeof value);
}

struct ImageSegment {
  u64 offset = 0, paddr = 0, vaddr = 0;
  ImageBytes content;
  u64 bss = 0;  // bytes behind the content
};

struct ImageNote {
  u32 type = 0;
  u64 value = 0;
  std::string owner = "Xen";
  std::string text{};  // if not empty, instead of the value
};

struct ElfRecipe {
  bool is_64 = true;
  u16 machine = spec::elf::kMachineX86_64;
  u64 entry = 0x200000;
  std::vector<ImageSegment> segments;
  std::vector<ImageNote> notes;
};

inline ImageBytes pattern(u64 size, u8 seed) {
  ImageBytes bytes(size);
  for (u64 i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(seed + i * 7 + (i >> 8));
  return bytes;
}

inline ImageBytes note_bytes(const ImageNote& note) {
  ImageBytes bytes;
  const auto name_size = static_cast<u32>(note.owner.size() + 1);
  const auto text_size = static_cast<u32>(note.text.size() + 1);
  put(bytes, 0, spec::elf::NoteHeader{name_size, note.text.empty() ? 8 : text_size, note.type});
  bytes.resize(12 + align_up(name_size, 4));
  std::memcpy(bytes.data() + 12, note.owner.c_str(), name_size);
  if (note.text.empty()) {
    put(bytes, bytes.size(), note.value);
    return bytes;
  }
  const u64 at = bytes.size();
  bytes.resize(at + align_up(text_size, 4));
  std::memcpy(bytes.data() + at, note.text.c_str(), text_size);
  return bytes;
}

template <class Header, class ProgramHeader>
ImageBytes make_elf_of(const ElfRecipe& recipe) {
  using Word = decltype(Header::entry);
  ImageBytes file(sizeof(Header));
  Header header{};
  header.identity = {spec::elf::kMagic,
                     sizeof(Word) == 8 ? spec::elf::kClass64 : spec::elf::kClass32,
                     spec::elf::kDataLittleEndian,
                     1,
                     0,
                     0,
                     {}};
  header.type = 2;
  header.machine = recipe.machine;
  header.version = 1;
  header.entry = static_cast<Word>(recipe.entry);
  header.phoff = sizeof(Header);
  header.ehsize = sizeof(Header);
  header.phentsize = sizeof(ProgramHeader);
  std::vector<ProgramHeader> table;
  for (const ImageSegment& s : recipe.segments) {
    ProgramHeader ph{};
    ph.type = spec::elf::kSegmentLoad;
    ph.offset = static_cast<Word>(s.offset);
    ph.paddr = static_cast<Word>(s.paddr);
    ph.vaddr = static_cast<Word>(s.vaddr == 0 ? s.paddr : s.vaddr);
    ph.filesz = static_cast<Word>(s.content.size());
    ph.memsz = static_cast<Word>(s.content.size() + s.bss);
    table.push_back(ph);
    if (file.size() < s.offset + s.content.size()) file.resize(s.offset + s.content.size());
    if (!s.content.empty()) std::memcpy(file.data() + s.offset, s.content.data(), s.content.size());
  }
  if (!recipe.notes.empty()) {
    ProgramHeader ph{};
    ph.type = spec::elf::kSegmentNote;
    ph.offset = static_cast<Word>(align_up(file.size(), 4));
    file.resize(ph.offset);
    for (const ImageNote& note : recipe.notes) {
      const ImageBytes bytes = note_bytes(note);
      file.insert(file.end(), bytes.begin(), bytes.end());
    }
    ph.filesz = ph.memsz = static_cast<Word>(file.size() - ph.offset);
    table.push_back(ph);
  }
  header.phnum = static_cast<u16>(table.size());
  put(file, 0, header);
  for (std::size_t i = 0; i < table.size(); ++i) put(file, sizeof(Header) + i * sizeof(ProgramHeader), table[i]);
  return file;
}

inline ImageBytes make_elf(const ElfRecipe& recipe) {
  using namespace spec::elf;
  return recipe.is_64 ? make_elf_of<Header64, ProgramHeader64>(recipe) : make_elf_of<Header32, ProgramHeader32>(recipe);
}

// A small kernel as Linux lays it out: text, data and a part that moves down, with a PVH note.
inline ElfRecipe linux_like() {
  ElfRecipe recipe;
  recipe.entry = 0x1000000;
  recipe.segments = {
      {0x1000, 0x1000000, 0xffffffff81000000, pattern(0x3000, 1), 0},
      {0x5000, 0x1004000, 0xffffffff81004000, pattern(0x2345, 2), 0},
      {0x9000, 0x1007000, 0xffffffff81007000, pattern(0x1800, 3), 0x4000},
  };
  recipe.notes = {{6, 0x1234, "Xen"}, {spec::elf::kXenNotePhys32Entry, 0x1000040, "Xen"}, {18, 0x666, "GNU"}};
  return recipe;
}

// ---- compression

inline ImageBytes compress(abi::Compression kind, const ImageBytes& in) {
  using abi::Compression;
  ImageBytes out(in.size() * 2 + 4096);
  auto* const to = reinterpret_cast<u8*>(out.data());
  const auto* const from = reinterpret_cast<const u8*>(in.data());
  switch (kind) {
    case Compression::kNone:
      return in;
    case Compression::kGzip: {
      z_stream z{};
      BH_ASSERT(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
      z.next_in = const_cast<u8*>(from);
      z.avail_in = static_cast<unsigned>(in.size());
      z.next_out = to;
      z.avail_out = static_cast<unsigned>(out.size());
      BH_ASSERT(deflate(&z, Z_FINISH) == Z_STREAM_END);
      out.resize(z.total_out);
      deflateEnd(&z);
      return out;
    }
    case Compression::kXz:
    case Compression::kLzma: {
      lzma_stream stream = LZMA_STREAM_INIT;
      lzma_options_lzma options;
      lzma_lzma_preset(&options, 6);
      BH_ASSERT((kind == Compression::kXz ? lzma_easy_encoder(&stream, 6, LZMA_CHECK_CRC32)
                                          : lzma_alone_encoder(&stream, &options)) == LZMA_OK);
      stream.next_in = from;
      stream.avail_in = in.size();
      stream.next_out = to;
      stream.avail_out = out.size();
      BH_ASSERT(lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
      out.resize(stream.total_out);
      lzma_end(&stream);
      return out;
    }
    case Compression::kLz4: {
      ImageBytes frame;
      put(frame, 0, spec::linux_boot::kLz4LegacyMagic);
      for (u64 at = 0; at < in.size(); at += spec::linux_boot::kLz4LegacyBlock) {
        const u64 size = std::min<u64>(in.size() - at, spec::linux_boot::kLz4LegacyBlock);
        ImageBytes block(static_cast<u64>(LZ4_compressBound(static_cast<int>(size))));
        const int packed =
            LZ4_compress_default(reinterpret_cast<const char*>(in.data() + at), reinterpret_cast<char*>(block.data()),
                                 static_cast<int>(size), static_cast<int>(block.size()));
        put(frame, frame.size(), static_cast<u32>(packed));
        frame.insert(frame.end(), block.begin(), block.begin() + packed);
      }
      return frame;
    }
    case Compression::kZstd: {
      const std::size_t size = ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3);
      BH_ASSERT(!ZSTD_isError(size));
      out.resize(size);
      return out;
    }
    case Compression::kBzip2: {
      auto size = static_cast<unsigned>(out.size());
      BH_ASSERT(BZ2_bzBuffToBuffCompress(reinterpret_cast<char*>(to), &size,
                                         const_cast<char*>(reinterpret_cast<const char*>(from)),
                                         static_cast<unsigned>(in.size()), 9, 0, 0) == BZ_OK);
      out.resize(size);
      return out;
    }
    case Compression::kLzo:
      return pattern(64, 0);
  }
  return {};
}

// ---- bzImage

struct BzRecipe {
  abi::Compression compression = abi::Compression::kLz4;
  u16 version = 0x020f;
  u32 init_size = 0x40000;
  u32 initrd_max = 0x7fffffff;
  u32 command_line_size = 2047;
  std::string_view release = "6.1.0-test (builder@host) #1 SMP";
};

inline constexpr u64 kBzSetupBytes = 3 * 512;  // boot sector and two setup sectors
inline constexpr u64 kBzPayloadOffset = 0x40;

inline ImageBytes make_bzimage(const ImageBytes& vmlinux, const BzRecipe& recipe = {}) {
  namespace lb = spec::linux_boot;
  ImageBytes file(kBzSetupBytes + kBzPayloadOffset);
  ImageBytes payload = compress(recipe.compression, vmlinux);
  const bool own_trailer =
      recipe.compression == abi::Compression::kGzip || recipe.compression == abi::Compression::kNone;
  if (!own_trailer) put(payload, payload.size(), static_cast<u32>(vmlinux.size()));
  put<u8>(file, lb::kSetupSectors, 2);
  put(file, lb::kBootFlag, lb::kBootFlagValue);
  put<u16>(file, lb::kJump, 0x6aeb);
  put(file, lb::kHeaderMagic, lb::kHeaderMagicValue);
  put(file, lb::kVersion, recipe.version);
  put<u16>(file, lb::kKernelVersion, 0x200);
  put(file, lb::kLoadFlags, lb::kLoadedHigh);
  put(file, lb::kInitrdAddrMax, recipe.initrd_max);
  put(file, lb::kCommandLineSize, recipe.command_line_size);
  put(file, lb::kPayloadOffset, static_cast<u32>(kBzPayloadOffset));
  put(file, lb::kPayloadLength, static_cast<u32>(payload.size()));
  put<u64>(file, lb::kPrefAddress, 0x1000000);
  put(file, lb::kInitSize, recipe.init_size);
  std::memcpy(file.data() + 0x400, recipe.release.data(), recipe.release.size());
  file.insert(file.end(), payload.begin(), payload.end());
  return file;
}

// ---- Multiboot

inline spec::multiboot::Header multiboot_header(u32 flags) {
  spec::multiboot::Header header{};
  header.magic = spec::multiboot::kHeaderMagic;
  header.flags = flags;
  header.checksum = -(header.magic + flags);
  return header;
}

}  // namespace bulkhead::testing
