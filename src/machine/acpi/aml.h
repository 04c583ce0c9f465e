// AML, the bytecode of ACPI's namespace [acpi-6.5 §20 "ACPI Machine Language Specification"]: as much of it as
// declarations need. Every function returns finished bytes; objects are nested by handing them on.
#pragma once
#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/ints.h"

namespace bulkhead::machine::aml {

using Bytes = std::vector<u8>;

Bytes concat(std::initializer_list<Bytes> parts);

// Objects.
Bytes integer(u64 value);
Bytes string(std::string_view text);                   // printable ASCII
Bytes eisa_id(std::string_view id);                    // "PNP0501"
Bytes package(std::initializer_list<Bytes> elements);  // at most 255
Bytes buffer(const Bytes& content);

// Declarations. `path`: an optional '\' and segments of up to four characters, joined by '.'.
Bytes name(std::string_view path, const Bytes& object);
Bytes scope(std::string_view path, const Bytes& body);
Bytes device(std::string_view path, const Bytes& body);

// Resource descriptors [acpi-6.5 §6.4], to be joined and wrapped by resources() into a _CRS object.
Bytes io(u16 port, u8 length);
Bytes irq(u8 number);  // ISA: edge, active high
Bytes memory32(u32 base, u32 length);
Bytes interrupt_high(u32 gsi, bool edge);
Bytes resources(std::initializer_list<Bytes> descriptors);

}  // namespace bulkhead::machine::aml
