#include "abi/image/bzimage.h"

#include <array>
#include <cctype>
#include <cstring>

#include "base/bits.h"
#include "spec/linux_boot.h"

namespace bulkhead::abi {
namespace {
namespace lb = spec::linux_boot;

constexpr u64 kSmallestPayload = 32;
constexpr u64 kLargestUnpacked = 4_GiB - 1;  // the trailer has 32 bits

// The fixed part of the file's beginning; the header never reaches beyond this.
using Head = std::array<std::byte, lb::kSetupHeaderLimit>;

template <class T>
T field(const Head& head, u32 offset) {
  T value;
  std::memcpy(&value, head.data() + offset, sizeof value);
  return value;
}

std::string read_version(const ByteSource& source, const Head& head) {
  const u16 offset = field<u16>(head, lb::kKernelVersion);
  if (offset == 0) return {};
  std::string text;
  for (u64 at = lb::kJump + u64{offset}; text.size() < 128; ++at) {
    const auto c = source.load<char>(at);
    // "6.1.0-43-cloud-amd64 (builder@...) #1 SMP ..." : the first word is the release.
    if (!c || !std::isgraph(static_cast<unsigned char>(*c))) break;
    text += *c;
  }
  return text;
}

Result<void> locate_payload(const ByteSource& source, const Head& head, SetupHeader& header) {
  const u64 sectors = field<u8>(head, lb::kSetupSectors) == 0 ? 4 : field<u8>(head, lb::kSetupSectors);
  header.payload_offset = (sectors + 1) * lb::kSectorSize + field<u32>(head, lb::kPayloadOffset);
  header.payload_size = field<u32>(head, lb::kPayloadLength);
  if (header.payload_size < kSmallestPayload)
    return fail("its setup header announces a payload of only {} bytes", header.payload_size);
  if (!range_within(header.payload_offset, header.payload_size, source.size()))
    return fail("truncated: its payload ends at byte {}, but it has only {} bytes",
                header.payload_offset + header.payload_size, source.size());
  std::array<std::byte, 8> magic;
  BH_TRY(source.read(header.payload_offset, magic));
  const auto kind = detect_compression(magic);
  if (!kind) return fail("its payload is in an unknown format (neither gzip, xz, lzma, lz4, zstd nor bzip2)");
  header.compression = *kind;
  if (*kind == Compression::kLzo) return fail("its payload is compressed with lzo, which is not supported");
  if (*kind == Compression::kNone) {
    header.unpacked_size = header.payload_size;
    return {};
  }
  // Every method's payload ends in its unpacked size: gzip by its own format, the others by the kernel's build.
  BH_ASSIGN(header.unpacked_size, source.load<u32>(header.payload_offset + header.payload_size - 4));
  static_assert(kLargestUnpacked <= 0xffffffff);
  if (header.unpacked_size < kSmallestPayload)
    return fail("its payload is corrupt: it announces {} bytes", header.unpacked_size);
  return {};
}
}  // namespace

bool looks_like_bzimage(const ByteSource& source) {
  const auto flag = source.load<u16>(lb::kBootFlag);
  const auto magic = source.load<u32>(lb::kHeaderMagic);
  return flag && magic && *flag == lb::kBootFlagValue && *magic == lb::kHeaderMagicValue;
}

Result<SetupHeader> parse_bzimage(const ByteSource& source) {
  Head head;
  BH_TRY(source.read(0, head));
  const u16 version = field<u16>(head, lb::kVersion);
  if (version < lb::kMinVersion)
    return fail("speaks boot protocol {}.{:02}; 2.08 (Linux 2.6.26) is the oldest that can be started", version >> 8,
                version & 0xff);
  if ((field<u8>(head, lb::kLoadFlags) & lb::kLoadedHigh) == 0)
    return fail("is a zImage; only bzImages can be started");
  SetupHeader header;
  const u32 end = lb::kHeaderMagic + field<u8>(head, lb::kJump + 1);
  if (end > lb::kSetupHeaderLimit || end <= lb::kPayloadLength + 3)
    return fail("its setup header ends at {:#x}, which cannot be", end);
  header.bytes.assign(head.begin() + lb::kSetupHeaderStart, head.begin() + end);
  header.kernel_version = read_version(source, head);
  header.initrd_max = field<u32>(head, lb::kInitrdAddrMax);
  header.command_line_size = field<u32>(head, lb::kCommandLineSize);
  if (end >= lb::kInitSize + 4) {
    header.pref_address = field<u64>(head, lb::kPrefAddress);
    header.init_size = field<u32>(head, lb::kInitSize);
  }
  BH_TRY(locate_payload(source, head, header));
  return header;
}

}  // namespace bulkhead::abi
