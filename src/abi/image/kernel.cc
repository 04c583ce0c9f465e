#include "abi/image/kernel.h"

#include <algorithm>
#include <array>

#include "abi/image/segments.h"
#include "base/bits.h"
#include "spec/elf.h"
#include "spec/linux_boot.h"

namespace bulkhead::abi {
namespace {
namespace lb = spec::linux_boot;
constexpr u64 kFourGib = 4_GiB;

// Kernels of other machines, and things that are no kernels, by a magic at some offset; to say what they are.
struct Stranger {
  u64 offset;
  u32 magic;
  std::string_view what;
};
constexpr std::array kStrangers = {
    Stranger{0x38, 0x644d5241, "not an x86 kernel: it is an arm64 Image"},
    Stranger{0x38, 0x05435352, "not an x86 kernel: it is a riscv Image"},
    Stranger{0x04, 0x676d697a, "not an x86 kernel: it is an EFI zboot image of another machine"},
    Stranger{0x00, 0x56190527, "not an x86 kernel: it is a U-Boot image"},
};

std::unexpected<Error> unknown_format(const ByteSource& source) {
  for (const Stranger& stranger : kStrangers)
    if (const auto magic = source.load<u32>(stranger.offset); magic && *magic == stranger.magic)
      return fail("{}", stranger.what);
  std::array<std::byte, 8> head{};
  if (source.size() >= head.size() && source.read(0, head))
    if (const auto kind = detect_compression(head); kind && *kind != Compression::kNone)
      return fail("is {} data; unpack it first (a bzImage, an ELF vmlinux or a Multiboot image is needed)",
                  compression_name(*kind));
  return fail("is in an unknown format: neither a bzImage, nor an ELF vmlinux, nor a Multiboot image");
}

Result<u64> entry_below_4g(u64 entry, std::string_view which) {
  if (entry >= kFourGib) return fail("has its {} entry at {:#x}, above 4 GiB", which, entry);
  return entry;
}

// Chooses among what an ELF kernel offers.
Result<Protocol> choose(const ElfFile& elf, bool bzimage, bool multiboot, std::optional<Protocol> wanted) {
  const bool pvh = elf.pvh_entry().has_value();
  if (!wanted) {
    if (pvh) return Protocol::kPvh;
    if (bzimage || (elf.is_64 && !multiboot)) return Protocol::kLinux64;
    if (multiboot) return Protocol::kMultiboot;
    return fail("is a 32-bit ELF file with neither a PVH entry (ELF note 18) nor a Multiboot header");
  }
  if (*wanted == Protocol::kPvh && !pvh) return fail("has no PVH entry (ELF note 18); its kernel needs CONFIG_PVH");
  if (*wanted == Protocol::kXenPv && !elf.xen_pv_entry())
    return fail("has no Xen PV entry (ELF note 1); its kernel needs CONFIG_XEN_PV");
  if (*wanted == Protocol::kMultiboot && !multiboot) return fail("has no Multiboot header");
  return *wanted;
}

// Where the chosen protocol enters. The address must be something that was loaded, or the guest would run zeros.
Result<u64> find_entry(const Kernel& kernel) {
  u64 entry = 0;
  if (kernel.protocol == Protocol::kXenPv) {
    entry = *kernel.elf.xen_pv_entry();
    for (const Segment& s : kernel.elf.loads)
      if (entry >= s.vaddr && entry - s.vaddr < s.memory_size) return entry;
    return fail("its Xen PV entry {:#x} is not in any of its segments", entry);
  }
  if (kernel.protocol == Protocol::kPvh) {
    entry = *kernel.elf.pvh_entry();
  } else {
    if (kernel.protocol == Protocol::kLinux64 && !kernel.elf.is_64)
      return fail("is a 32-bit kernel, which the 64-bit Linux boot protocol cannot enter");
    const auto physical = kernel.elf.physical_entry();
    if (!physical) return fail("its entry {:#x} is not in any of its segments", kernel.elf.entry);
    entry = *physical;
    if (kernel.protocol == Protocol::kMultiboot) BH_TRY(entry_below_4g(entry, "Multiboot"));
  }
  for (const Segment& s : kernel.elf.loads)
    if (entry >= s.paddr && entry - s.paddr < s.memory_size) return entry;
  return fail("its {} entry {:#x} is not in any of its segments", protocol_name(kernel.protocol), entry);
}

// How far the running kernel reaches: its bss, and what a bzImage says that it needs from its load address on.
Result<Extent> reach(const Kernel& kernel, const GuestMemory& memory) {
  Extent extent = extent_of(kernel.elf);
  if (!kernel.setup || kernel.setup->init_size == 0) return extent;
  const u64 end = std::max(extent.end().value, extent.start.value + kernel.setup->init_size);
  extent.size = end - extent.start.value;
  if (memory.host(extent.start, extent.size) == nullptr)
    return fail("too big for the zone's memory of {} MiB: it runs at {:#x} to {:#x} and needs at least {}",
                memory.size() >> 20, extent.start.value, end, memory_needed(end));
  return extent;
}

std::string describe(const Kernel& kernel, std::string_view format) {
  std::string text{format};
  if (kernel.setup && !kernel.setup->kernel_version.empty()) text += " " + kernel.setup->kernel_version;
  if (kernel.setup) text += fmt::format(" ({})", compression_name(kernel.setup->compression));
  return fmt::format("{}, {} entry", text, protocol_name(kernel.protocol));
}

Result<Kernel> load_bzimage(const ByteSource& source, const GuestMemory& memory, std::optional<Protocol> wanted) {
  Kernel kernel;
  BH_ASSIGN(kernel.setup, parse_bzimage(source));
  BH_ASSIGN(kernel.elf, load_payload(source, *kernel.setup, memory));
  BH_ASSIGN(kernel.protocol, choose(kernel.elf, true, false, wanted));
  kernel.description = describe(kernel, "bzImage");
  return kernel;
}

Result<Kernel> load_elf(const ByteSource& source, const GuestMemory& memory, std::optional<Protocol> wanted) {
  Kernel kernel;
  BH_ASSIGN(kernel.elf, parse_elf(source));
  BH_TRY(read_xen_notes(source, kernel.elf));
  const auto multiboot = find_multiboot_header(source);
  BH_ASSIGN(kernel.protocol, choose(kernel.elf, false, multiboot.has_value(), wanted));
  const bool is_64 = kernel.elf.is_64;
  if (kernel.protocol == Protocol::kMultiboot) {
    BH_TRY(check_multiboot_flags(*multiboot));
    // With the address fields present they are used "instead of the fields in the actual executable header".
    if (multiboot->has_addresses()) {
      BH_ASSIGN(kernel.elf, multiboot_raw_layout(source, *multiboot));
    }
  }
  BH_TRY(check_segments_fit(kernel.elf, memory));
  BH_TRY(copy_segments(source, kernel.elf, memory));
  kernel.description = describe(kernel, is_64 ? "ELF64" : "ELF32");
  return kernel;
}

Result<Kernel> load_raw(const ByteSource& source, const GuestMemory& memory, std::optional<Protocol> wanted) {
  const auto multiboot = find_multiboot_header(source);
  if (!multiboot) return unknown_format(source);
  if (wanted && *wanted != Protocol::kMultiboot) return fail("is a plain Multiboot image without any other entry");
  BH_TRY(check_multiboot_flags(*multiboot));
  if (!multiboot->has_addresses())
    return fail("is neither ELF nor has load addresses in its Multiboot header, so nobody knows where it belongs");
  Kernel kernel;
  kernel.protocol = Protocol::kMultiboot;
  BH_ASSIGN(kernel.elf, multiboot_raw_layout(source, *multiboot));
  BH_TRY(check_segments_fit(kernel.elf, memory));
  BH_TRY(copy_segments(source, kernel.elf, memory));
  kernel.description = describe(kernel, "raw image");
  return kernel;
}
// A kernel that starts allocates from the top of memory, where its initrd lies, too, and then behind itself; a small
// one has less to allocate.
void expect_boot(const Kernel& kernel, const GuestMemory& memory) {
  const u64 top = std::min(12_MiB, memory.size() / 32);
  for (const RamRange& range : memory.ranges())
    if (range.size > top) memory.expect_use_soon(range.start + range.size - top, top);
  memory.expect_use_soon(kernel.loaded.end(), 2 * top);
}
}  // namespace

std::string_view protocol_name(Protocol protocol) {
  switch (protocol) {
    case Protocol::kPvh:
      return "PVH";
    case Protocol::kLinux64:
      return "64-bit Linux";
    case Protocol::kMultiboot:
      return "Multiboot";
    case Protocol::kXenPv:
      return "Xen PV";
  }
  return "?";
}

Gpa Kernel::initrd_limit() const {
  if (!setup) return Gpa{kFourGib};
  return Gpa{u64{setup->initrd_max == 0 ? lb::kDefaultInitrdAddrMax : setup->initrd_max} + 1};
}

u64 Kernel::command_line_limit() const {
  if (protocol == Protocol::kMultiboot) return kBootTextSize - 1;
  const u64 own = setup && setup->command_line_size != 0 ? setup->command_line_size : lb::kDefaultCommandLineSize;
  return std::min<u64>(own, kBootTextSize - 1);
}

Result<Kernel> load_kernel(const ByteSource& source, const std::string& path, const GuestMemory& memory,
                           std::optional<Protocol> wanted) {
  if (source.size() == 0) return fail("is empty");
  const auto magic = source.load<u32>(0);
  const auto load = magic && *magic == spec::elf::kMagic ? load_elf
                    : looks_like_bzimage(source)         ? load_bzimage
                                                         : load_raw;
  BH_ASSIGN(Kernel kernel, load(source, memory, wanted));
  kernel.path = path;
  BH_ASSIGN(kernel.entry, find_entry(kernel));
  BH_ASSIGN(kernel.loaded, reach(kernel, memory));
  expect_boot(kernel, memory);
  return kernel;
}

Result<Kernel> load_kernel(const std::string& path, const GuestMemory& memory, std::optional<Protocol> wanted) {
  BH_ASSIGN(const FileSource file, FileSource::open("kernel", path));
  auto kernel = load_kernel(file, path, memory, wanted);
  if (!kernel) return fail("the kernel {}: {}", path, kernel.error().message);
  return kernel;
}

}  // namespace bulkhead::abi
