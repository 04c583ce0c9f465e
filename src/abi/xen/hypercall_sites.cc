#include "abi/xen/hypercall_sites.h"

#include <string.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/assert.h"

namespace bulkhead::abi::xen {
namespace {

constexpr std::size_t kLength = 3;
constexpr std::size_t kFar = 64;  // the two functions are neighbours
constexpr u8 kVmmcall[kLength] = {0x0f, 0x01, 0xd9}, kVmcall[kLength] = {0x0f, 0x01, 0xc1};
constexpr u8 kNop = 0x90, kRet = 0xc3, kJump = 0xe9;

u8 at(std::span<const std::byte> image, std::size_t place) { return std::to_integer<u8>(image[place]); }

// Where the code behind the instruction at `place` goes: the target of its jump, or of a RET a constant.
std::optional<std::size_t> way_out(std::span<const std::byte> image, std::size_t place) {
  const std::size_t next = place + kLength;
  if (next + 5 > image.size()) return std::nullopt;
  if (at(image, next) == kRet) return ~std::size_t{0};
  if (at(image, next) != kJump) return std::nullopt;
  i32 distance = 0;
  std::memcpy(&distance, image.data() + next + 1, sizeof distance);
  return next + 5 + static_cast<std::size_t>(static_cast<i64>(distance));
}

std::optional<std::size_t> find(std::span<const std::byte> image, std::size_t from, std::size_t to,
                                const u8 (&code)[kLength]) {
  to = std::min(to, image.size());
  if (from >= to) return std::nullopt;
  const void* const found = ::memmem(image.data() + from, to - from, code, kLength);
  if (found == nullptr) return std::nullopt;
  return static_cast<std::size_t>(static_cast<const std::byte*>(found) - image.data());
}

void put(std::span<std::byte> image, std::size_t place, std::span<const u8> call) {
  for (std::size_t i = 0; i < kLength; ++i) image[place + i] = std::byte{i < call.size() ? call[i] : kNop};
}

}  // namespace

bool is_common_hypercall(std::span<const u8> call) {
  return std::ranges::equal(call, kVmcall) || std::ranges::equal(call, kVmmcall);
}

unsigned replace_hypercalls(std::span<std::byte> image, std::span<const u8> call) {
  BH_ASSERT(call.size() <= kLength);
  unsigned replaced = 0;
  for (std::size_t from = 0;;) {
    const auto vmmcall = find(image, from, image.size(), kVmmcall);
    if (!vmmcall) return replaced;
    from = *vmmcall + kLength;
    const auto out = way_out(image, *vmmcall);
    const auto vmcall = out ? find(image, from, from + kFar, kVmcall) : std::nullopt;
    if (!vmcall || way_out(image, *vmcall) != out) continue;
    put(image, *vmmcall, call);
    put(image, *vmcall, call);
    replaced += 2;
  }
}

}  // namespace bulkhead::abi::xen
