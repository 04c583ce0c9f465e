#include "zone/kernel/cpio.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "zone/store/tool.h"

namespace bulkhead::zone {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span{text}); }

TEST(Cpio, HeaderIsAsTheKernelReadsIt) {
  CpioWriter writer;
  writer.add_file("init", 0755, bytes("abc"));
  const std::string archive = writer.finish();
  EXPECT_EQ(archive.substr(0, 6), "070701");
  EXPECT_EQ(archive.substr(14, 8), "000081ED");          // mode
  EXPECT_EQ(archive.substr(6 + 8 * 6, 8), "00000003");   // size
  EXPECT_EQ(archive.substr(6 + 8 * 11, 8), "00000005");  // name's length with its NUL
  EXPECT_EQ(archive.substr(110, 5), std::string("init\0", 5));
  EXPECT_EQ(archive.substr(116, 3), "abc");
  EXPECT_EQ(archive.size() % 4, 0u);
  EXPECT_TRUE(archive.contains("TRAILER!!!"));
}

TEST(Cpio, EqualContentsMakeEqualArchives) {
  const auto make = [] {
    CpioWriter writer;
    writer.add_file("a/b/c", 0644, bytes("x"));
    writer.add_character_device("dev/console", 0600, 5, 1);
    return writer.finish();
  };
  EXPECT_EQ(make(), make());
}

TEST(Cpio, OtherProgramsReadIt) {
  if (find_tool("cpio").empty()) GTEST_SKIP() << "cpio is not installed";
  CpioWriter writer;
  writer.add_file("a/b/one", 0644, bytes("1"));
  writer.add_file("a/b/two", 0644, bytes("12"));
  writer.add_folder("a/b");
  char path[] = "/tmp/bulkhead-cpio-XXXXXX";
  ::close(::mkstemp(path));
  std::ofstream{path} << writer.finish();
  Progress progress{Progress::Show::kNever};
  Workshop workshop{progress};
  const auto listing = run_tool(
      {.command = {"sh", "-c", std::string{"cpio -t --quiet <"} + path}, .package = "cpio", .keep_output = true},
      workshop);
  ::unlink(path);
  EXPECT_EQ(listing.value(), "a\na/b\na/b/one\na/b/two\n");
}

}  // namespace
}  // namespace bulkhead::zone
