#include "abi/linux/linux_boot.h"

#include <array>
#include <cstring>

#include "abi/boot_text.h"
#include "abi/flat_state.h"
#include "spec/linux_boot.h"

namespace bulkhead::abi {
namespace {
namespace lb = spec::linux_boot;

class ZeroPage {
 public:
  template <class T>
  void put(u32 offset, T value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof value);
  }
  void copy(u32 offset, std::span<const std::byte> from) {
    std::memcpy(bytes_.data() + offset, from.data(), from.size());
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::array<std::byte, lb::kZeroPageSize> bytes_{};
};

// A bzImage brings its own header; of a plain vmlinux the kernel reads only what we fill in below.
void put_setup_header(ZeroPage& page, const Kernel& kernel) {
  if (kernel.setup) {
    page.copy(lb::kSetupHeaderStart, kernel.setup->bytes);
  } else {
    page.put<u16>(lb::kBootFlag, lb::kBootFlagValue);
    page.put<u32>(lb::kHeaderMagic, lb::kHeaderMagicValue);
    page.put<u16>(lb::kVersion, 0x020f);
    page.put<u8>(lb::kLoadFlags, lb::kLoadedHigh);
    page.put<u32>(lb::kAlignment, 2_MiB);
  }
  page.put<u8>(lb::kTypeOfLoader, lb::kUnknownLoader);
}

Result<void> put_map(ZeroPage& page, const BootInfo& info) {
  if (info.memory_map.size() > lb::kE820Max) return fail("the memory map has more than {} entries", lb::kE820Max);
  u32 at = lb::kE820Table;
  for (const MapEntry& entry : info.memory_map) {
    page.put<u64>(at, entry.extent.start.value);
    page.put<u64>(at + 8, entry.extent.size);
    page.put<u32>(at + 16, entry.type);
    at += lb::kE820EntrySize;
  }
  page.put<u8>(lb::kE820Entries, static_cast<u8>(info.memory_map.size()));
  return {};
}

void put_initrd(ZeroPage& page, const Extent& initrd) {
  page.put<u32>(lb::kRamdiskImage, static_cast<u32>(initrd.start.value));
  page.put<u32>(lb::kRamdiskSize, static_cast<u32>(initrd.size));
  page.put<u32>(lb::kExtRamdiskImage, static_cast<u32>(initrd.start.value >> 32));
  page.put<u32>(lb::kExtRamdiskSize, static_cast<u32>(initrd.size >> 32));
}
}  // namespace

Result<void> prepare_linux64(const Kernel& kernel, const BootInfo& info, const GuestMemory& memory,
                             engine::VcpuState& state) {
  BH_TRY(write_command_line(info.command_line, kernel.command_line_limit(), memory));
  ZeroPage page;
  put_setup_header(page, kernel);
  page.put<u32>(lb::kCommandLine, static_cast<u32>(kCommandLine.value));
  page.put<u64>(lb::kAcpiRsdp, info.rsdp.value);
  BH_TRY(put_map(page, info));
  if (info.initrd) put_initrd(page, *info.initrd);
  if (!memory.write(kBootStructure, page.bytes())) return no_low_memory();
  BH_TRY(enter_flat64(state, memory, kernel.entry));
  state.gpr[6] = kBootStructure.value;  // RSI
  return {};
}

}  // namespace bulkhead::abi
