#include "spec/acpi.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "machine/acpi/aml.h"
#include "machine/acpi/tables.h"

namespace bulkhead::machine {
namespace {

constexpr Gpa kBase{0xe0000};
constexpr u64 kRoom = 0x20000;

AcpiConfig example(unsigned vcpus, unsigned devices) {
  AcpiConfig config{vcpus, Gpa{0xfee00000}, Gpa{0xfec00000}, {}, true, true};
  for (unsigned i = 0; i < devices; ++i) config.virtio.push_back({Gpa{0xd0000000 + i * 0x1000}, 0x1000, Gsi{16 + i}});
  return config;
}

u8 sum(const u8* at, u64 size) {
  u8 total = 0;
  for (u64 i = 0; i < size; ++i) total = static_cast<u8>(total + at[i]);
  return total;
}

template <class T>
T at(const std::vector<u8>& area, u64 gpa) {
  T value;
  EXPECT_LE(gpa - kBase.value + sizeof value, area.size());
  std::memcpy(&value, area.data() + (gpa - kBase.value), sizeof value);
  return value;
}

// signature -> bytes, found by walking from the RSDP as a guest does.
std::vector<std::pair<std::string, std::vector<u8>>> walk(const std::vector<u8>& area) {
  std::vector<std::pair<std::string, std::vector<u8>>> found;
  const auto add = [&](u64 gpa) {
    const u64 offset = gpa - kBase.value;
    const auto from = area.begin() + static_cast<long>(offset);
    found.push_back({std::string(from, from + 4), {from, from + at<u32>(area, gpa + 4)}});
  };
  const u64 xsdt = at<u64>(area, kBase.value + 24);
  add(xsdt);
  for (u64 entry = xsdt + 36; entry < xsdt + at<u32>(area, xsdt + 4); entry += 8) add(at<u64>(area, entry));
  const u64 fadt = at<u64>(area, xsdt + 36);
  add(at<u64>(area, fadt + 140));
  return found;
}

TEST(AcpiTables, EveryTableIsFoundAndSumsToZero) {
  const auto area = build_acpi_tables(example(8, 16), kBase, kRoom);
  ASSERT_TRUE(area);
  EXPECT_EQ(std::string(area->begin(), area->begin() + 8), "RSD PTR ");
  EXPECT_EQ(sum(area->data(), 20), 0);
  EXPECT_EQ(sum(area->data(), 36), 0);
  std::string names;
  for (const auto& [name, bytes] : walk(*area)) {
    names += name + " ";
    EXPECT_EQ(sum(bytes.data(), bytes.size()), 0) << name;
  }
  EXPECT_EQ(names, "XSDT FACP APIC DSDT ");
}

TEST(AcpiTables, FadtIsNotHardwareReduced) {
  const auto area = build_acpi_tables(example(1, 0), kBase, kRoom);
  ASSERT_TRUE(area);
  const auto fadt = walk(*area)[1].second;
  u32 flags = 0;
  std::memcpy(&flags, fadt.data() + 112, 4);
  EXPECT_EQ(flags & (1u << 20), 0u);
  const u32 facs = at<u32>(*area, at<u64>(*area, at<u64>(*area, kBase.value + 24) + 36) + 36);
  EXPECT_EQ(facs % 64, 0u);
  EXPECT_EQ(at<u32>(*area, facs), 0x53434146u);  // "FACS"
}

TEST(AcpiTables, AClockThatIsNotToldOfIsDeniedInTheFadt) {
  AcpiConfig config = example(1, 0);
  for (const bool rtc : {true, false}) {
    config.rtc = rtc;
    const auto area = build_acpi_tables(config, kBase, kRoom);
    ASSERT_TRUE(area);
    const auto fadt = walk(*area)[1].second;
    EXPECT_EQ((fadt[109] & spec::acpi::kNoRtc) == 0, rtc);
    const auto body = build_dsdt_body(config);
    const aml::Bytes id = aml::eisa_id("PNP0B00");
    EXPECT_EQ(std::search(body.begin(), body.end(), id.begin(), id.end()) != body.end(), rtc);
  }
}

TEST(AcpiTables, MadtHasOneEntryForEachVcpu) {
  for (unsigned vcpus : {1u, 2u, 8u}) {
    const auto area = build_acpi_tables(example(vcpus, 0), kBase, kRoom);
    const auto madt = walk(*area)[2].second;
    unsigned lapics = 0;
    for (u64 i = 44; i < madt.size(); i += madt[i + 1]) {
      ASSERT_NE(madt[i + 1], 0);
      lapics += madt[i] == 0;
    }
    EXPECT_EQ(lapics, vcpus);
  }
}

TEST(AcpiTables, TooLittleRoomIsAnError) { EXPECT_FALSE(build_acpi_tables(example(8, 16), kBase, 512)); }

TEST(Aml, PackageLengthsOfEverySize) {
  // The length includes its own bytes: 1 up to 63, 2 up to 4095, 3 beyond.
  for (u64 size : {u64{10}, u64{61}, u64{62}, u64{63}, u64{4090}, u64{4093}, u64{4094}, u64{70000}}) {
    const aml::Bytes bytes = aml::scope("\\_SB", aml::Bytes(size, 0xa3));
    const unsigned extra = bytes[1] >> 6;
    u64 length = extra == 0 ? bytes[1] & 0x3f : bytes[1] & 0xf;
    for (unsigned i = 0; i < extra; ++i) length |= u64{bytes[2 + i]} << (4 + 8 * i);
    EXPECT_EQ(length, bytes.size() - 1) << size;
  }
}

TEST(Aml, EisaIdAsTheSpecificationPacksIt) {
  EXPECT_EQ(aml::eisa_id("PNP0501"), (aml::Bytes{0x0c, 0x41, 0xd0, 0x05, 0x01}));
}

// ---- the reference compiler's opinion

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, {}};
}

int run(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct IaslTest : ::testing::Test {
  void SetUp() override {
    if (run("command -v iasl >/dev/null 2>&1") != 0) GTEST_SKIP() << "iasl is not installed (package acpica-tools)";
    std::string name = ::testing::TempDir() + "bulkhead-acpi-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override {
    if (!folder.empty()) std::filesystem::remove_all(folder);
  }
  std::filesystem::path folder;
};

TEST_F(IaslTest, DisassemblesAndCompilesAgain) {
  const auto area = build_acpi_tables(example(2, 5), kBase, kRoom);
  ASSERT_TRUE(area);
  for (const auto& [name, bytes] : walk(*area)) {
    const std::string stem = folder / name;
    std::ofstream{stem + ".aml", std::ios::binary}.write(reinterpret_cast<const char*>(bytes.data()),
                                                         static_cast<std::streamsize>(bytes.size()));
    ASSERT_EQ(run("iasl -d " + stem + ".aml >" + stem + ".log 2>&1"), 0) << read_file(stem + ".log");
    const std::string text = read_file(stem + ".dsl");
    EXPECT_EQ(text.find("Error"), text.npos) << text;
    EXPECT_EQ(text.find("Invalid"), text.npos) << text;
    if (name != "DSDT") continue;
    EXPECT_NE(text.find("\"LNRO0005\""), text.npos);
    EXPECT_NE(text.find("0xD0004000"), text.npos);
    EXPECT_NE(text.find("EisaId (\"PNP0501\")"), text.npos);
    EXPECT_NE(text.find("0x00000014"), text.npos);  // GSI 20, of the fifth device
    ASSERT_EQ(run("iasl -p " + stem + "-again " + stem + ".dsl >" + stem + ".log 2>&1"), 0) << read_file(stem + ".log");
    EXPECT_NE(read_file(stem + ".log").find(" 0 Errors"), std::string::npos) << read_file(stem + ".log");
  }
}

}  // namespace
}  // namespace bulkhead::machine
