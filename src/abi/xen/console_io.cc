// console_io: the emergency console [xen/xen.h "CONSOLEIO"]. What a guest may write is limited in rate; the rest is
// dropped and counted.
#include <algorithm>

#include "abi/xen/domain_parts.h"
#include "abi/xen/errors.h"

namespace bulkhead::abi::xen {
namespace {
constexpr u64 kBurst = 256_KiB, kBytesPerSecond = 64_KiB;
constexpr u64 kSecond = 1'000'000'000;

u64 allowance(DomainParts& d, u64 wanted) {
  Lock lock{d.console_mutex};
  const Nanoseconds now = d.clock.now(), passed = std::min<Nanoseconds>(now - d.console_credit_at, 60 * kSecond);
  const u64 gained = passed * kBytesPerSecond / kSecond;
  if (gained != 0) {
    d.console_credit = std::min(kBurst, d.console_credit + gained);
    d.console_credit_at = now;
  }
  const u64 granted = std::min(wanted, d.console_credit);
  d.console_credit -= granted;
  return granted;
}

i64 write(DomainParts& d, Guest& guest, u64 count, u64 at) {
  if (count > 64_KiB) return -kXE2BIG;
  if (!d.config.console) return 0;
  const u64 granted = allowance(d, count);
  d.counters[kConsoleBytesDropped].add(count - granted);
  std::array<char, 256> piece;
  for (u64 done = 0; done < granted;) {
    const u64 length = std::min<u64>(piece.size(), granted - done);
    if (!guest.read_bytes(at + done, std::as_writable_bytes(std::span{piece}.first(length)))) return -kXEFAULT;
    d.config.console({piece.data(), length});
    done += length;
  }
  return 0;
}
}  // namespace

Answer console_io(DomainParts& domain, Guest& guest, const HypercallArgs& args) {
  switch (args[0]) {
    case CONSOLEIO_write:
      return {write(domain, guest, args[1] & ~u32{0}, args[2])};
    case CONSOLEIO_read:
      return {0};  // nobody types there
    default:
      return domain.unknown_operation();
  }
}

}  // namespace bulkhead::abi::xen
