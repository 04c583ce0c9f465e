// Guest memory by linear address: the guest's page tables are walked here, for KVM tells no permissions
// [SDM-3A "4-Level Paging"]. Accessed and dirty bits are set as the processor would.
#include <cstring>

#include "engine/describe.h"
#include "engine/kvm/ioctl.h"
#include "engine/kvm/vcpu.h"

namespace bulkhead::engine::kvm {
namespace {

constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 1u << 5, kDirty = 1u << 6, kLarge = 1u << 7;
constexpr u64 kAddress = 0x000ffffffffff000;
constexpr u64 kPg = 1u << 31, kWp = 1u << 16, kPae = 1u << 5, kLma = 0x400, kSmapCr4 = 1u << 21, kAcFlag = 1u << 18;

bool canonical(u64 linear) { return static_cast<u64>(static_cast<i64>(linear << 16) >> 16) == linear; }

struct Walk {
  const GuestMemory& memory;
  u64 cr3;
  bool write, user, write_protect;

  // The guest-physical address of `linear`, or nothing where the access would fault.
  std::optional<u64> long_mode(u64 linear) const {
    if (!canonical(linear)) return std::nullopt;
    u64 table = cr3 & kAddress, rights = kWritable | kUser;
    for (int level = 3; level >= 0; --level) {
      const unsigned shift = 12 + 9 * static_cast<unsigned>(level);
      std::byte* const at = memory.host(Gpa{table + (linear >> shift & 511) * 8}, 8);
      if (at == nullptr) return std::nullopt;
      std::atomic_ref entry{*reinterpret_cast<u64*>(at)};
      const u64 value = entry.load(std::memory_order_relaxed);
      if (!(value & kPresent)) return std::nullopt;
      rights &= value;
      const bool last = level == 0 || (level <= 2 && (value & kLarge));
      if (last && !allowed(rights)) return std::nullopt;
      const u64 marks = kAccessed | (last && write ? kDirty : 0);
      if ((value & marks) != marks) entry.fetch_or(marks, std::memory_order_relaxed);
      if (!last) {
        table = value & kAddress;
        continue;
      }
      const u64 inside = (u64{1} << shift) - 1;
      return (value & kAddress & ~inside) | (linear & inside);
    }
    return std::nullopt;
  }
  bool allowed(u64 rights) const {
    if (user && !(rights & kUser)) return false;
    return !write || (rights & kWritable) || (!user && !write_protect);
  }
};

}  // namespace

template <class Access>
bool KvmVcpu::each_page(Gva at, std::size_t length, bool write, Access access) {
  const kvm_sregs& s = special();
  const Walk walk{vm_.memory, s.cr3, write, (s.ss.dpl & 3) == 3, (s.cr0 & kWp) != 0};
  for (std::size_t done = 0; done < length;) {
    const u64 linear = at.value + done;
    std::optional<u64> gpa;
    if (!(s.cr0 & kPg)) {
      gpa = static_cast<u32>(linear);
    } else if (s.efer & kLma) {
      gpa = walk.long_mode(linear);
    } else {
      kvm_translation translation{};
      translation.linear_address = linear;
      if (kvm_ioctl(fd_.get(), KVM_TRANSLATE, &translation) == 0 && translation.valid)
        gpa = translation.physical_address;
    }
    if (!gpa) return false;
    const std::size_t piece = std::min<std::size_t>(length - done, kPageSize - (linear & (kPageSize - 1)));
    if (!access(Gpa{*gpa}, done, piece)) return false;
    done += piece;
  }
  return true;
}

bool KvmVcpu::read_virtual(Gva at, std::span<std::byte> out) {
  return each_page(at, out.size(), false, [&](Gpa gpa, std::size_t done, std::size_t piece) {
    if (!vm_.memory.read(gpa, out.subspan(done, piece))) std::memset(out.data() + done, 0xff, piece);  // a device's
    return true;
  });
}

bool KvmVcpu::write_virtual(Gva at, std::span<const std::byte> in) {
  return each_page(at, in.size(), true, [&](Gpa gpa, std::size_t done, std::size_t piece) {
    (void)vm_.memory.write(gpa, in.subspan(done, piece));
    return true;
  });
}

std::optional<Gpa> KvmVcpu::translate(Gva at, std::size_t length) {
  std::optional<Gpa> first;
  const bool whole = each_page(at, length, true, [&](Gpa gpa, std::size_t done, std::size_t) {
    if (!first) first = gpa;
    return gpa.value == first->value + done;
  });
  return whole ? first : std::nullopt;
}

std::string KvmVcpu::describe() {
  VcpuState now;
  if (auto got = get_all(now); !got) return got.error().message;
  special_.reset();
  return describe_state(now, [this](u64 linear) -> std::optional<u8> {
    std::byte byte{};
    if (!read_virtual(Gva{linear}, std::span{&byte, 1})) return std::nullopt;
    return std::to_integer<u8>(byte);
  });
}

}  // namespace bulkhead::engine::kvm
