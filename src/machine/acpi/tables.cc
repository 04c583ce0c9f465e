#include "machine/acpi/tables.h"

#include <cstring>
#include <string_view>

#include "base/assert.h"
#include "base/bits.h"
#include "spec/acpi.h"
#include "spec/acpi_ports.h"

namespace bulkhead::machine {
namespace {
namespace acpi = spec::acpi;

// Little-endian bytes that grow.
class Table {
 public:
  template <class T>
  void add(T value) {
    const auto* const from = reinterpret_cast<const u8*>(&value);
    bytes_.insert(bytes_.end(), from, from + sizeof value);
  }
  void add_text(std::string_view text) { bytes_.insert(bytes_.end(), text.begin(), text.end()); }
  void add_bytes(const std::vector<u8>& more) { bytes_.insert(bytes_.end(), more.begin(), more.end()); }
  template <class T>
  void put(u64 offset, T value) {
    BH_ASSERT(offset + sizeof value <= bytes_.size());
    std::memcpy(bytes_.data() + offset, &value, sizeof value);
  }
  void resize(u64 size) { bytes_.resize(size); }
  // Makes the byte at `at` such that the first `length` bytes sum to zero.
  void checksum(u64 at, u64 length) {
    bytes_[at] = 0;
    u8 sum = 0;
    for (u64 i = 0; i < length; ++i) sum = static_cast<u8>(sum + bytes_[i]);
    bytes_[at] = static_cast<u8>(-sum);
  }
  std::vector<u8>& bytes() { return bytes_; }

 private:
  std::vector<u8> bytes_;
};

constexpr std::string_view kOemId = "BLKHD ", kOemTable = "MICROVM ", kCreator = "BLKH";
constexpr u64 kLengthOffset = 4, kChecksumOffset = 9;

// The header that all tables but RSDP and FACS share.
Table begin(std::string_view signature, u8 revision) {
  Table table;
  table.add_text(signature);
  table.add<u32>(0);  // length, set by finish()
  table.add<u8>(revision);
  table.add<u8>(0);  // checksum, likewise
  table.add_text(kOemId);
  table.add_text(kOemTable);
  table.add<u32>(1);
  table.add_text(kCreator);
  table.add<u32>(1);
  return table;
}

std::vector<u8> finish(Table table) {
  const u64 size = table.bytes().size();
  table.put(kLengthOffset, static_cast<u32>(size));
  table.checksum(kChecksumOffset, size);
  return std::move(table.bytes());
}

std::vector<u8> rsdp(Gpa xsdt) {
  Table table;
  table.add_text("RSD PTR ");
  table.add<u8>(0);
  table.add_text(kOemId);
  table.add<u8>(2);   // revision
  table.add<u32>(0);  // no RSDT
  table.add<u32>(acpi::kRsdpSize);
  table.add<u64>(xsdt.value);
  table.add<u32>(0);
  constexpr u64 kOldChecksum = 8, kOldSize = 20, kExtendedChecksum = 32;
  table.checksum(kOldChecksum, kOldSize);
  table.checksum(kExtendedChecksum, acpi::kRsdpSize);
  return std::move(table.bytes());
}

std::vector<u8> facs() {
  Table table;
  table.add_text("FACS");
  table.add<u32>(acpi::kFacsSize);
  table.resize(acpi::kFacsSize);
  table.put<u8>(32, 2);  // version
  return std::move(table.bytes());
}

// A generic address structure for a register block in I/O space [acpi-6.5 §5.2.3.2].
void put_port(Table& table, u64 offset, u16 port, u8 bits, u8 access) {
  constexpr u8 kSystemIo = 1;
  table.put<u8>(offset, kSystemIo);
  table.put<u8>(offset + 1, bits);
  table.put<u8>(offset + 3, access);  // 1: byte, 2: word, 3: dword
  table.put<u64>(offset + 4, port);
}

// Offsets are those of [acpi-6.5 table 5.9 "FADT Format"].
std::vector<u8> fadt(const AcpiConfig& config, Gpa facs_at, Gpa dsdt_at) {
  Table t = begin("FACP", 6);
  t.resize(acpi::kFadtSize);
  t.put<u32>(36, static_cast<u32>(facs_at.value));
  t.put<u32>(40, static_cast<u32>(dsdt_at.value));
  t.put<u16>(46, static_cast<u16>(kSciGsi.value));
  t.put<u32>(56, acpi::kPm1EventPort);
  t.put<u32>(64, acpi::kPm1ControlPort);
  t.put<u32>(76, acpi::kPmTimerPort);
  t.put<u8>(88, 4);       // bytes of PM1_EVT
  t.put<u8>(89, 2);       // of PM1_CNT
  t.put<u8>(91, 4);       // of PM_TMR
  t.put<u16>(96, 0xfff);  // no C2
  t.put<u16>(98, 0xfff);  // no C3
  t.put<u8>(108, 0x32);   // the century's index in the RTC's memory
  t.put<u16>(109, acpi::kLegacyDevices | acpi::kNoVga | (config.rtc ? u16{0} : acpi::kNoRtc));
  t.put<u32>(112, acpi::kWbinvd | acpi::kProcC1 | acpi::kNoPowerButton | acpi::kNoSleepButton | acpi::kRtcWakeNotFixed |
                      acpi::kTimer32Bit | acpi::kResetSupported);
  put_port(t, 116, acpi::kResetPort, 8, 1);
  t.put<u8>(128, acpi::kResetValue);
  t.put<u8>(131, 5);  // 6.5
  t.put<u64>(140, dsdt_at.value);
  put_port(t, 148, acpi::kPm1EventPort, 32, 2);
  put_port(t, 172, acpi::kPm1ControlPort, 16, 2);
  put_port(t, 208, acpi::kPmTimerPort, 32, 3);
  return finish(std::move(t));
}

void add_override(Table& table, u8 irq, Gsi gsi, u16 flags) {
  table.add<u8>(acpi::kMadtOverride);
  table.add<u8>(10);
  table.add<u8>(0);  // bus: ISA
  table.add<u8>(irq);
  table.add<u32>(gsi.value);
  table.add<u16>(flags);
}

std::vector<u8> madt(const AcpiConfig& config) {
  Table table = begin("APIC", 5);
  table.add<u32>(static_cast<u32>(config.lapic.value));
  table.add<u32>(acpi::kPcAtCompatible);
  for (unsigned i = 0; i < config.vcpus; ++i) {
    table.add<u8>(acpi::kMadtLocalApic);
    table.add<u8>(8);
    table.add<u8>(static_cast<u8>(i));  // processor UID
    table.add<u8>(static_cast<u8>(i));  // APIC ID
    table.add<u32>(1);                  // enabled
  }
  table.add<u8>(acpi::kMadtIoApic);
  table.add<u8>(12);
  table.add<u8>(0);  // its ID
  table.add<u8>(0);
  table.add<u32>(static_cast<u32>(config.ioapic.value));
  table.add<u32>(0);  // first GSI
  add_override(table, 0, Gsi{2}, acpi::kBusDefault);
  add_override(table, static_cast<u8>(kSciGsi.value), kSciGsi, acpi::kActiveHighLevel);
  table.add<u8>(acpi::kMadtLocalApicNmi);
  table.add<u8>(6);
  table.add<u8>(0xff);  // every processor
  table.add<u16>(acpi::kBusDefault);
  table.add<u8>(1);  // LINT1
  return finish(std::move(table));
}

std::vector<u8> xsdt(std::initializer_list<Gpa> tables) {
  Table table = begin("XSDT", 1);
  for (const Gpa at : tables) table.add<u64>(at.value);
  return finish(std::move(table));
}

std::vector<u8> dsdt(const AcpiConfig& config) {
  Table table = begin("DSDT", 2);
  table.add_bytes(build_dsdt_body(config));
  return finish(std::move(table));
}

// Hands out addresses and collects bytes.
class Area {
 public:
  explicit Area(Gpa base) : base_{base} {}
  Gpa place(const std::vector<u8>& table) {
    bytes_.resize(align_up(bytes_.size(), acpi::kFacsAlignment));
    const Gpa at = base_ + bytes_.size();
    bytes_.insert(bytes_.end(), table.begin(), table.end());
    return at;
  }
  std::vector<u8>& bytes() { return bytes_; }

 private:
  Gpa base_;
  std::vector<u8> bytes_;
};
}  // namespace

Result<std::vector<u8>> build_acpi_tables(const AcpiConfig& config, Gpa base, u64 room) {
  BH_ASSERT(is_aligned(base.value, acpi::kFacsAlignment));
  Area area{base};
  area.place(rsdp(Gpa{0}));  // rewritten below, when the XSDT's address is known
  const Gpa dsdt_at = area.place(dsdt(config));
  const Gpa fadt_at = area.place(fadt(config, area.place(facs()), dsdt_at));
  const Gpa madt_at = area.place(madt(config));
  const Gpa xsdt_at = area.place(xsdt({fadt_at, madt_at}));
  const std::vector<u8> first = rsdp(xsdt_at);
  std::copy(first.begin(), first.end(), area.bytes().begin());
  if (area.bytes().size() > room)
    return fail("the ACPI tables have {} bytes, more than the {} that there is room for", area.bytes().size(), room);
  return std::move(area.bytes());
}

}  // namespace bulkhead::machine
