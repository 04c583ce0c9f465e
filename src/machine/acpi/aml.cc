#include "machine/acpi/aml.h"

#include "base/assert.h"

namespace bulkhead::machine::aml {
namespace {

enum Op : u8 {
  kName = 0x08,
  kByte = 0x0a,
  kWord = 0x0b,
  kDword = 0x0c,
  kString = 0x0d,
  kQword = 0x0e,
  kScope = 0x10,
  kBuffer = 0x11,
  kPackage = 0x12,
  kDualName = 0x2e,
  kMultiName = 0x2f,
  kExtended = 0x5b,
  kDevice = 0x82,
  kRoot = 0x5c,
};

void append(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }

void append_little(Bytes& to, u64 value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) to.push_back(static_cast<u8>(value >> (8 * i)));
}

// A package length counts its own bytes [acpi-6.5 §20.2.4].
Bytes with_length(const Bytes& body) {
  Bytes out;
  const u64 size = body.size();
  if (size + 1 < 0x40) {
    out.push_back(static_cast<u8>(size + 1));
  } else {
    const unsigned extra = size + 2 < 0x1000 ? 1 : size + 3 < 0x100000 ? 2 : 3;
    const u64 length = size + 1 + extra;
    out.push_back(static_cast<u8>(extra << 6 | (length & 0xf)));
    append_little(out, length >> 4, extra);
  }
  append(out, body);
  return out;
}

Bytes segment(std::string_view text) {
  BH_ASSERT(!text.empty() && text.size() <= 4);
  Bytes out{text.begin(), text.end()};
  out.resize(4, '_');
  return out;
}

Bytes name_string(std::string_view path) {
  Bytes out;
  if (path.starts_with('\\')) {
    out.push_back(kRoot);
    path.remove_prefix(1);
  }
  std::vector<Bytes> segments;
  while (true) {
    const auto dot = path.find('.');
    segments.push_back(segment(path.substr(0, dot)));
    if (dot == path.npos) break;
    path.remove_prefix(dot + 1);
  }
  if (segments.size() == 2) out.push_back(kDualName);
  if (segments.size() > 2) {
    out.push_back(kMultiName);
    out.push_back(static_cast<u8>(segments.size()));
  }
  for (const Bytes& one : segments) append(out, one);
  return out;
}

Bytes named_block(std::initializer_list<u8> op, std::string_view path, const Bytes& body) {
  Bytes inner = name_string(path);
  append(inner, body);
  Bytes out{op};
  append(out, with_length(inner));
  return out;
}
}  // namespace

Bytes concat(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) append(out, part);
  return out;
}

Bytes integer(u64 value) {
  if (value <= 1) return {static_cast<u8>(value)};  // ZeroOp, OneOp
  Bytes out;
  const unsigned size = value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
  out.push_back(size == 1 ? kByte : size == 2 ? kWord : size == 4 ? kDword : kQword);
  append_little(out, value, size);
  return out;
}

Bytes string(std::string_view text) { return concat({{kString}, Bytes(text.begin(), text.end()), {0}}); }

Bytes eisa_id(std::string_view id) {
  BH_ASSERT(id.size() == 7);
  const auto letter = [&](unsigned i) { return static_cast<u32>(id[i] - 0x40) & 0x1f; };
  const auto digit = [&](unsigned i) { return static_cast<u32>(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10); };
  const u32 vendor = letter(0) << 10 | letter(1) << 5 | letter(2);
  const u32 product = digit(3) << 12 | digit(4) << 8 | digit(5) << 4 | digit(6);
  // Both halves are stored big-endian.
  const u32 value = vendor << 16 | product;
  return {kDword, static_cast<u8>(value >> 24), static_cast<u8>(value >> 16), static_cast<u8>(value >> 8),
          static_cast<u8>(value)};
}

Bytes package(std::initializer_list<Bytes> elements) {
  Bytes inner{static_cast<u8>(elements.size())};
  append(inner, concat(elements));
  Bytes out{kPackage};
  append(out, with_length(inner));
  return out;
}

Bytes buffer(const Bytes& content) {
  Bytes inner = integer(content.size());
  append(inner, content);
  Bytes out{kBuffer};
  append(out, with_length(inner));
  return out;
}

Bytes name(std::string_view path, const Bytes& object) { return concat({{kName}, name_string(path), object}); }

Bytes scope(std::string_view path, const Bytes& body) { return named_block({kScope}, path, body); }

Bytes device(std::string_view path, const Bytes& body) { return named_block({kExtended, kDevice}, path, body); }

Bytes io(u16 port, u8 length) {
  constexpr u8 kIoDescriptor = 0x47, kDecode16 = 1, kAlignment = 1;
  Bytes out{kIoDescriptor, kDecode16};
  append_little(out, port, 2);  // lowest
  append_little(out, port, 2);  // highest
  out.push_back(kAlignment);
  out.push_back(length);
  return out;
}

Bytes irq(u8 number) {
  constexpr u8 kIrqNoFlags = 0x22;
  Bytes out{kIrqNoFlags};
  append_little(out, u64{1} << number, 2);
  return out;
}

Bytes memory32(u32 base, u32 length) {
  constexpr u8 kMemory32Fixed = 0x86, kReadWrite = 1;
  Bytes out{kMemory32Fixed, 9, 0, kReadWrite};
  append_little(out, base, 4);
  append_little(out, length, 4);
  return out;
}

Bytes interrupt_high(u32 gsi, bool edge) {
  constexpr u8 kExtendedInterrupt = 0x89, kConsumer = 1, kEdge = 2;  // polarity 0: active high, not shared
  Bytes out{kExtendedInterrupt, 6, 0, static_cast<u8>(kConsumer | (edge ? kEdge : 0)), 1};
  append_little(out, gsi, 4);
  return out;
}

Bytes resources(std::initializer_list<Bytes> descriptors) {
  constexpr u8 kEndTag = 0x79, kNoChecksum = 0;
  Bytes content = concat(descriptors);
  content.push_back(kEndTag);
  content.push_back(kNoChecksum);
  return name("_CRS", buffer(content));
}

}  // namespace bulkhead::machine::aml
