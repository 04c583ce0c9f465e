#include "zone/image/apt_sources.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace bulkhead::zone {
namespace {

constexpr std::string_view kDebian =
    "Types: deb deb-src\n# a comment\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n bookworm-updates\n"
    "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

TEST(AptSources, OwnSuitesStay) {
  EXPECT_EQ(filter_deb822(kDebian, "bookworm"), std::string{kDebian} + "\n");
  EXPECT_EQ(filter_deb822(kDebian, "trixie"), "");
}

TEST(AptSources, StrangersAndDisabledGo) {
  const std::string text =
      "Types: deb\nURIs: https://vendor.example\nSuites: nodistro\nComponents: main\n\n"
      "types: deb\nuris: http://x\nsuites: bookworm-security\ncomponents: main\n\n"
      "Types: deb\nURIs: http://x\nSuites: bookworm\nEnabled: no\n\n"
      "Types: deb-src\nURIs: http://x\nSuites: bookworm\n\n"
      "Types: deb\nURIs: http://x\nSuites: bookworm-backports\n";
  EXPECT_EQ(filter_deb822(text, "bookworm"),
            "types: deb\nuris: http://x\nsuites: bookworm-security\ncomponents: main\n\n");
}

TEST(AptSources, OneLine) {
  EXPECT_EQ(filter_one_line("# deb http://x bookworm main\n"
                            "deb http://x bookworm main contrib\n"
                            "deb [arch=amd64 signed-by=/k.gpg] http://x bookworm-updates main\n"
                            "deb [arch=amd64\n"
                            "deb-src http://x bookworm main\n"
                            "deb https://packages.example/apt cloud-sdk-bookworm main\n",
                            "bookworm"),
            "deb http://x bookworm main contrib\n"
            "deb [arch=amd64 signed-by=/k.gpg] http://x bookworm-updates main\n");
}

TEST(AptSources, AnotherSuiteOfTheSameArchive) {
  const AptSources found = sources_for_suite({"bookworm", std::string{kDebian}, ""}, "bookworm-backports").value();
  EXPECT_TRUE(found.deb822.contains("Suites: bookworm-backports\n"));
  EXPECT_TRUE(found.deb822.contains("URIs: http://deb.debian.org/debian\n"));
  EXPECT_TRUE(found.deb822.contains("Signed-By: /usr/share"));
  EXPECT_EQ(sources_for_suite({"bookworm", "", "deb [a=b] http://x bookworm main\n"}, "sid").value().one_line,
            "deb [a=b] http://x sid main\n");
  EXPECT_FALSE(sources_for_suite({"bookworm", "", ""}, "sid"));
  EXPECT_FALSE(sources_for_suite({"bookworm", std::string{kDebian}, ""}, "sid\nEvil: yes"));
}

TEST(AptSources, HostWithoutAnyGetsThePublicArchive) {
  char pattern[] = "/tmp/bulkhead-apt-XXXXXX";
  const std::string root = ::mkdtemp(pattern);
  std::filesystem::create_directories(root + "/etc");
  std::ofstream{root + "/etc/os-release"} << "ID=debian\nVERSION_CODENAME=trixie\n";
  const AptSources sources = read_apt_sources(root);
  EXPECT_EQ(sources.codename, "trixie");
  EXPECT_TRUE(sources.deb822.contains("Suites: trixie trixie-updates"));
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace bulkhead::zone
