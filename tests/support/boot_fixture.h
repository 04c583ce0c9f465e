// A loaded kernel and an ordinary machine's boot information, for the tests of the boot protocols.
#pragma once
#include <gtest/gtest.h>

#include "abi/boot_info.h"
#include "abi/image/kernel.h"
#include "engine/vcpu_state.h"
#include "spec/e820.h"
#include "tests/support/kernel_images.h"

namespace bulkhead::testing {

struct BootFixture : ::testing::Test {
  BootFixture() {
    info.memory_map = {{{Gpa{0}, 0x9fc00}, spec::e820::kRam},
                       {{Gpa{0x9fc00}, 0x60400}, spec::e820::kReserved},
                       {{Gpa{0x100000}, 31_MiB}, spec::e820::kRam}};
    info.command_line = "console=hvc0 quiet";
    info.rsdp = Gpa{0xe0000};
    info.initrd = abi::Extent{Gpa{0x1f00000}, 0x12345};
  }
  void load(const ImageBytes& file, std::optional<abi::Protocol> wanted = {}) {
    auto loaded = abi::load_kernel(abi::MemorySource{file}, "path/k", memory, wanted);
    ASSERT_TRUE(loaded) << loaded.error().message;
    kernel = std::move(*loaded);
  }
  std::string text(u64 at) const {
    std::string out;
    for (auto c = memory.load<char>(Gpa{at}); c && *c != '\0'; c = memory.load<char>(Gpa{++at})) out += *c;
    return out;
  }
  template <class T>
  T get(u64 at) const {
    const auto value = memory.load<T>(Gpa{at});
    EXPECT_TRUE(value) << std::hex << at;
    return value.value_or(T{});
  }

  GuestMemory memory = std::move(*GuestMemory::create_pc(32_MiB));
  abi::Kernel kernel;
  abi::BootInfo info;
  engine::VcpuState state;
};

}  // namespace bulkhead::testing
