#include "zone/kernel/module_file.h"

#include <elf.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>

#include "base/bits.h"

namespace bulkhead::zone {
namespace {

Result<std::string> unpack_xz(const std::string& file) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, 256_MiB, 0) != LZMA_OK) return fail("starting the xz decoder");
  std::string out(std::min<u64>(file.size() * 8 + 4096, kMaxModuleSize), '\0');
  stream.next_in = reinterpret_cast<const u8*>(file.data());
  stream.avail_in = file.size();
  lzma_ret status = LZMA_OK;
  while (status == LZMA_OK && stream.total_out < kMaxModuleSize) {
    if (stream.total_out == out.size()) out.resize(std::min<u64>(out.size() * 2, kMaxModuleSize));
    stream.next_out = reinterpret_cast<u8*>(out.data()) + stream.total_out;
    stream.avail_out = out.size() - stream.total_out;
    status = lzma_code(&stream, LZMA_FINISH);
  }
  out.resize(stream.total_out);
  lzma_end(&stream);
  if (status != LZMA_STREAM_END) return fail("its xz data is broken or too large");
  return out;
}

Result<std::string> unpack_zstd(const std::string& file) {
  std::string out;
  ZSTD_DStream* const stream = ZSTD_createDStream();
  ZSTD_inBuffer in{file.data(), file.size(), 0};
  std::size_t status = 1;
  bool good = stream != nullptr;
  while (good && in.pos < in.size && status != 0) {
    char buffer[65536];
    ZSTD_outBuffer piece{buffer, sizeof buffer, 0};
    status = ZSTD_decompressStream(stream, &piece, &in);
    good = ZSTD_isError(status) == 0 && out.size() + piece.pos <= kMaxModuleSize;
    if (good) out.append(buffer, piece.pos);
  }
  ZSTD_freeDStream(stream);
  if (!good || status != 0) return fail("its zstd data is broken or too large");
  return out;
}

Result<std::string> unpack_gzip(std::string& file) {
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return fail("starting the gzip decoder");
  stream.next_in = reinterpret_cast<Bytef*>(file.data());
  stream.avail_in = static_cast<uInt>(file.size());
  std::string out;
  int status = Z_OK;
  while (status == Z_OK && out.size() <= kMaxModuleSize) {
    char buffer[65536];
    stream.next_out = reinterpret_cast<Bytef*>(buffer);
    stream.avail_out = sizeof buffer;
    status = inflate(&stream, Z_NO_FLUSH);
    out.append(buffer, sizeof buffer - stream.avail_out);
  }
  inflateEnd(&stream);
  if (status != Z_STREAM_END || out.size() > kMaxModuleSize) return fail("its gzip data is broken or too large");
  return out;
}

template <class T>
bool load(std::span<const std::byte> bytes, u64 offset, T& out) {
  if (!range_within(offset, sizeof out, bytes.size())) return false;
  std::memcpy(&out, bytes.data() + offset, sizeof out);
  return true;
}

Result<std::span<const std::byte>> find_section(std::span<const std::byte> elf, std::string_view wanted) {
  Elf64_Ehdr header;
  if (!load(elf, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_type != ET_REL ||
      header.e_shentsize != sizeof(Elf64_Shdr))
    return fail("it is not a 64-bit kernel module");
  const auto section_at = [&](u32 index, Elf64_Shdr& out) {
    u64 offset;
    return index < header.e_shnum && !__builtin_add_overflow(header.e_shoff, u64{index} * sizeof out, &offset) &&
           load(elf, offset, out) &&
           range_within(out.sh_offset, out.sh_type == SHT_NOBITS ? 0 : out.sh_size, elf.size());
  };
  Elf64_Shdr names, section;
  if (!section_at(header.e_shstrndx, names) || names.sh_type != SHT_STRTAB) return fail("its section names are broken");
  for (u32 i = 0; i < header.e_shnum; ++i) {
    if (!section_at(i, section)) return fail("its section table is broken");
    if (section.sh_name >= names.sh_size || section.sh_type != SHT_PROGBITS) continue;
    const auto* const name = reinterpret_cast<const char*>(elf.data()) + names.sh_offset + section.sh_name;
    if (std::string_view{name, ::strnlen(name, names.sh_size - section.sh_name)} == wanted)
      return elf.subspan(section.sh_offset, section.sh_size);
  }
  return std::span<const std::byte>{};
}

void add_names(std::string_view list, std::string_view separators, std::vector<std::string>& out) {
  while (!list.empty()) {
    const std::size_t end = std::min(list.find_first_of(separators), list.size());
    if (end > 0) {
      std::string name{list.substr(0, end)};
      std::ranges::replace(name, '-', '_');
      out.push_back(std::move(name));
    }
    list.remove_prefix(std::min(end + 1, list.size()));
  }
}

// "pre: a b post: c" -> a b
void add_soft(std::string_view text, std::vector<std::string>& out) {
  const std::size_t pre = text.find("pre:");
  if (pre == std::string_view::npos) return;
  text.remove_prefix(pre + 4);
  add_names(text.substr(0, text.find("post:")), " ", out);
}

}  // namespace

Result<std::string> unpack_module(std::string file) {
  if (file.starts_with("\xFD"
                       "7zXZ"))
    return unpack_xz(file);
  if (file.starts_with("\x28\xB5\x2F\xFD")) return unpack_zstd(file);
  if (file.starts_with("\x1F\x8B")) return unpack_gzip(file);
  if (file.size() > kMaxModuleSize) return fail("it is larger than {} MiB", kMaxModuleSize >> 20);
  return file;
}

Result<ModuleInfo> parse_module(std::span<const std::byte> elf) {
  BH_ASSIGN(const std::span<const std::byte> section, find_section(elf, ".modinfo"));
  std::string_view text{reinterpret_cast<const char*>(section.data()), section.size()};
  ModuleInfo info;
  while (!text.empty()) {
    const std::string_view entry = text.substr(0, text.find('\0'));
    if (entry.starts_with("depends=")) add_names(entry.substr(8), ",", info.depends);
    if (entry.starts_with("softdep=")) add_soft(entry.substr(8), info.pre_soft);
    text.remove_prefix(std::min(entry.size() + 1, text.size()));
  }
  return info;
}

std::string module_name(std::string_view file_name) {
  const std::size_t end = file_name.find(".ko");
  if (end == std::string_view::npos || end == 0) return {};
  const std::string_view suffix = file_name.substr(end);
  if (suffix != ".ko" && suffix != ".ko.xz" && suffix != ".ko.zst" && suffix != ".ko.gz") return {};
  std::string name{file_name.substr(0, end)};
  std::ranges::replace(name, '-', '_');
  return name;
}

}  // namespace bulkhead::zone
