// Tar files made by hand, also such as no tool makes. For tests.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "base/ints.h"

namespace bulkhead::zone::test {

class TarMaker {
 public:
  struct Entry {
    char type = '0';  // '0' file, '1' hard link, '2' symbolic link, '3', '4' devices, '5' folder, '6' pipe
    std::string target = {};
    unsigned mode = 0644, uid = 0, gid = 0;
    long time = 1'000'000'000;
  };
  TarMaker& add(const std::string& name, std::string_view content, const Entry& entry) {
    // Longer names go into a header of their own, as pax has it.
    if (name.size() > 100 || entry.target.size() > 100) {
      std::string records;
      const auto record = [&](const std::string& key, const std::string& value) {
        std::string line = " " + key + "=" + value + "\n";
        std::size_t size = line.size() + 1;
        while (std::to_string(size).size() + line.size() != size) size = std::to_string(size).size() + line.size();
        records += std::to_string(size) + line;
      };
      if (name.size() > 100) record("path", name);
      if (entry.target.size() > 100) record("linkpath", entry.target);
      header("PaxHeader", records.size(), {.type = 'x'});
      data(records);
    }
    header(name.substr(0, 100), content.size(), entry);
    data(content);
    return *this;
  }
  TarMaker& file(const std::string& name, std::string_view content, unsigned mode = 0644) {
    return add(name, content, {.mode = mode});
  }
  TarMaker& folder(const std::string& name, unsigned mode = 0755) { return add(name, "", {.type = '5', .mode = mode}); }
  TarMaker& link(const std::string& name, const std::string& target) {
    return add(name, "", {.type = '2', .target = target});
  }
  TarMaker& hard_link(const std::string& name, const std::string& target) {
    return add(name, "", {.type = '1', .target = target});
  }
  std::string finish() const { return bytes_ + std::string(1024, '\0'); }

 private:
  void header(const std::string& name, std::size_t size, const Entry& entry) {
    char block[512] = {};
    std::memcpy(block, name.data(), name.size());
    std::snprintf(block + 100, 8, "%07o", entry.mode);
    std::snprintf(block + 108, 8, "%07o", entry.uid);
    std::snprintf(block + 116, 8, "%07o", entry.gid);
    std::snprintf(block + 124, 12, "%011lo", static_cast<unsigned long>(size));
    std::snprintf(block + 136, 12, "%011lo", static_cast<unsigned long>(entry.time));
    block[156] = entry.type;
    std::memcpy(block + 157, entry.target.data(), std::min<std::size_t>(entry.target.size(), 100));
    std::memcpy(block + 257, "ustar\00000", 8);
    std::memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (const char c : block) sum += static_cast<unsigned char>(c);
    std::snprintf(block + 148, 8, "%06o", sum);
    bytes_.append(block, sizeof block);
  }
  void data(std::string_view content) {
    bytes_ += content;
    bytes_.append((512 - content.size() % 512) % 512, '\0');
  }
  std::string bytes_;
};

}  // namespace bulkhead::zone::test
