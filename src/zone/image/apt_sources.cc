#include "zone/image/apt_sources.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace bulkhead::zone {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPublicArchive =
    "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {0} {0}-updates\nComponents: main\n"
    "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

bool is_own_suite(std::string_view suite, std::string_view codename) {
  if (!suite.starts_with(codename)) return false;
  suite.remove_prefix(codename.size());
  return suite.empty() || suite == "/" || suite == "-updates" || suite == "-security" || suite == "/updates";
}

std::vector<std::string> words(std::string_view text) {
  std::istringstream in{std::string{text}};
  return {std::istream_iterator<std::string>{in}, {}};
}

// The value of a deb822 field, continuation lines joined; names are case-insensitive [deb822(5)].
std::string field(const std::string& stanza, std::string_view name) {
  std::istringstream in{stanza};
  std::string value;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('#')) continue;
    if (line.starts_with(' ') || line.starts_with('\t')) {
      if (inside) value += line;
      continue;
    }
    const std::size_t colon = line.find(':');
    inside = colon == name.size() && std::equal(name.begin(), name.end(), line.begin(), [](char a, char b) {
               return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
             });
    if (inside) value = line.substr(colon + 1);
  }
  return value;
}

std::vector<std::string> stanzas(std::string_view text) {
  std::vector<std::string> out(1);
  std::istringstream in{std::string{text}};
  for (std::string line; std::getline(in, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) {
      out.emplace_back();
    } else {
      out.back() += line + "\n";
    }
  }
  return out;
}

std::string read_text(const fs::path& path) {
  std::ifstream in{path};
  return {std::istreambuf_iterator<char>{in}, {}};
}

std::string os_release_value(const std::string& root, std::string_view name) {
  std::istringstream in{read_text(root + "/etc/os-release")};
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != '=') continue;
    std::string value = line.substr(name.size() + 1);
    std::erase(value, '"');
    return value;
  }
  return {};
}

}  // namespace

std::string filter_deb822(std::string_view text, std::string_view codename) {
  std::string out;
  for (const std::string& stanza : stanzas(text)) {
    const auto types = words(field(stanza, "Types"));
    const auto enabled = words(field(stanza, "Enabled"));
    if (std::ranges::find(types, "deb") == types.end() || (!enabled.empty() && enabled[0] == "no")) continue;
    if (std::ranges::any_of(words(field(stanza, "Suites")), [&](const auto& s) { return is_own_suite(s, codename); }))
      out += stanza + "\n";
  }
  return out;
}

std::string filter_one_line(std::string_view text, std::string_view codename) {
  std::string out;
  std::istringstream in{std::string{text}};
  for (std::string line; std::getline(in, line);) {
    auto parts = words(line.substr(0, line.find('#')));
    if (parts.size() < 3 || parts[0] != "deb") continue;
    std::size_t at = 1;
    if (parts[1].starts_with('['))
      while (at < parts.size() && !parts[at++].ends_with(']')) {
      }
    if (at + 1 < parts.size() && is_own_suite(parts[at + 1], codename)) out += line + "\n";
  }
  return out;
}

AptSources read_apt_sources(const std::string& root) {
  AptSources sources;
  const bool debian = os_release_value(root, "ID") == "debian";
  sources.codename = debian ? os_release_value(root, "VERSION_CODENAME") : "";
  if (sources.codename.empty()) sources.codename = "bookworm";
  if (debian) sources.one_line = filter_one_line(read_text(root + "/etc/apt/sources.list"), sources.codename);
  std::error_code error;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator{root + "/etc/apt/sources.list.d", error})
    files.push_back(entry.path());
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    if (debian && file.extension() == ".sources") sources.deb822 += filter_deb822(read_text(file), sources.codename);
    if (debian && file.extension() == ".list") sources.one_line += filter_one_line(read_text(file), sources.codename);
  }
  if (sources.deb822.empty() && sources.one_line.empty())
    sources.deb822 = fmt::format(kPublicArchive, sources.codename);
  return sources;
}

Result<AptSources> sources_for_suite(const AptSources& sources, std::string_view suite) {
  AptSources out{sources.codename, {}, {}};
  const bool sane = !suite.empty() && std::ranges::all_of(suite, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '/';
  });
  if (!sane) return fail("'{}' is not the name of a suite", suite);
  for (const std::string& stanza : stanzas(sources.deb822)) {
    const auto suites = words(field(stanza, "Suites"));
    if (std::ranges::find(suites, sources.codename) == suites.end()) continue;
    const std::string signed_by = field(stanza, "Signed-By");
    out.deb822 = fmt::format("Types: deb\nURIs:{}\nSuites: {}\nComponents: main\n", field(stanza, "URIs"), suite);
    if (!signed_by.empty() && !signed_by.contains("BEGIN PGP")) out.deb822 += "Signed-By:" + signed_by + "\n";
    return out;
  }
  std::istringstream in{sources.one_line};
  for (std::string line; std::getline(in, line);) {
    const std::size_t at = line.find(" " + sources.codename + " ");
    if (at == std::string::npos) continue;
    out.one_line = fmt::format("{} {} main\n", line.substr(0, at), suite);
    return out;
  }
  return fail("the host's apt sources name no archive for {}: cannot look for {} there", sources.codename, suite);
}

}  // namespace bulkhead::zone
