#include "tests/insn/xsave_image.h"

#include "engine/dbt/simd/xstate.h"

namespace bulkhead::insn {
namespace dbt = engine::dbt;

u64 image_components() { return dbt::host_xstate().xcr0; }

void to_image(const Registers& registers, std::byte* image) {
  const dbt::HostXstate& host = dbt::host_xstate();
  std::memset(image, 0, 576);
  std::memcpy(image, &registers.fcw, 2);
  std::memcpy(image + 2, &registers.fsw, 2);
  std::memcpy(image + 4, &registers.ftw, 1);
  std::memcpy(image + 24, &registers.mxcsr, 4);
  for (unsigned i = 0; i < 8; ++i) std::memcpy(image + 32 + 16 * i, registers.st[i].data(), 10);
  std::memcpy(image + 512, &host.xcr0, 8);
  for (unsigned n = 0; n < 16; ++n) {
    const auto* zmm = reinterpret_cast<const std::byte*>(registers.zmm[n].data());
    std::memcpy(image + 160 + 16 * n, zmm, 16);
    if (host.component[2].size) std::memcpy(image + host.component[2].offset + 16 * n, zmm + 16, 16);
    if (host.component[6].size) std::memcpy(image + host.component[6].offset + 32 * n, zmm + 32, 32);
    if (host.component[7].size)
      std::memcpy(image + host.component[7].offset + 64 * n, registers.zmm[n + 16].data(), 64);
  }
  if (host.component[5].size) std::memcpy(image + host.component[5].offset, registers.k.data(), 64);
}

void from_image(const std::byte* image, Registers& registers) {
  const dbt::HostXstate& host = dbt::host_xstate();
  u64 in_use;
  std::memcpy(&in_use, image + 512, 8);
  registers.fcw = 0x37f;
  registers.fsw = 0;
  registers.ftw = 0;
  registers.st = {};
  if (in_use & 1) {
    std::memcpy(&registers.fcw, image, 2);
    std::memcpy(&registers.fsw, image + 2, 2);
    std::memcpy(&registers.ftw, image + 4, 1);
    for (unsigned i = 0; i < 8; ++i) std::memcpy(registers.st[i].data(), image + 32 + 16 * i, 10);
  }
  std::memcpy(&registers.mxcsr, image + 24, 4);
  const auto part = [&](unsigned component, u32 offset, void* to, u32 size) {
    if (host.component[component].size == 0 || !((in_use >> component) & 1))
      std::memset(to, 0, size);
    else
      std::memcpy(to, image + host.component[component].offset + offset, size);
  };
  for (unsigned n = 0; n < 16; ++n) {
    auto* zmm = reinterpret_cast<std::byte*>(registers.zmm[n].data());
    part(1, 16 * n, zmm, 16);
    part(2, 16 * n, zmm + 16, 16);
    part(6, 32 * n, zmm + 32, 32);
    part(7, 64 * n, registers.zmm[n + 16].data(), 64);
  }
  part(5, 0, registers.k.data(), 64);
}

}  // namespace bulkhead::insn
