// The host's apt sources, cut down to those of its own Debian release. Pure text functions, and reading them.
#pragma once
#include <string>
#include <string_view>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::zone {

struct AptSources {
  std::string codename;  // "bookworm"
  std::string deb822;    // content for a .sources file; may be empty
  std::string one_line;  // content for a .list file; may be empty
};

// Keeps what names the suite `codename` itself, its updates or its security updates. Other repositories (a vendor's,
// backports) stay out: a zone's root holds Debian and nothing else.
std::string filter_deb822(std::string_view text, std::string_view codename);
std::string filter_one_line(std::string_view text, std::string_view codename);

// From /etc/os-release and /etc/apt below `root`. When the host has none of its own, Debian stable's public archive.
AptSources read_apt_sources(const std::string& root = "");

// The same with one more suite of the first archive found, e.g. "bookworm-backports"; that suite alone.
Result<AptSources> sources_for_suite(const AptSources& sources, std::string_view suite);

}  // namespace bulkhead::zone
