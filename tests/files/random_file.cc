// In the manner of fsx: reads, writes, mappings, truncation, holes, copies and reopening, against a copy in memory.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "exerciser.h"

namespace {

constexpr size_t kMost = 400'000;

class RandomFile {
 public:
  RandomFile(std::string path, unsigned long seed) : path_{std::move(path)}, random_{seed} {
    file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  }
  ~RandomFile() { close(file_); }

  // Null, or what went wrong.
  const char* step() {
    switch (below(9)) {
      case 0:
      case 1:
        return write_some();
      case 2:
        return map_and_write();
      case 3:
        return map_and_read();
      case 4:
        return truncate();
      case 5:
        return punch();
      case 6:
        return copy_range();
      case 7:
        return below(8) == 0 ? reopen() : nullptr;
      default:
        return read_some();
    }
  }
  const char* compare_all() {
    std::vector<char> now(model_.size() + 1);
    if (pread(file_, now.data(), now.size(), 0) != static_cast<ssize_t>(model_.size())) return "size of the whole";
    return std::equal(model_.begin(), model_.end(), now.begin()) ? nullptr : "the whole";
  }

 private:
  size_t below(size_t end) { return end == 0 ? 0 : random_() % end; }
  size_t length() { return 1 + below(below(4) == 0 ? 150'000 : 9'000); }
  std::vector<char> data(size_t size) {
    std::vector<char> out(size);
    for (char& c : out) c = static_cast<char>(random_());
    return out;
  }
  void model_write(size_t at, const std::vector<char>& bytes) {
    if (model_.size() < at + bytes.size()) model_.resize(at + bytes.size());
    std::copy(bytes.begin(), bytes.end(), model_.begin() + static_cast<long>(at));
  }

  const char* write_some() {
    const std::vector<char> bytes = data(length());
    const size_t at = below(std::min(kMost - bytes.size(), model_.size() + 20'000));
    model_write(at, bytes);
    return pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at)) == static_cast<ssize_t>(bytes.size())
               ? nullptr
               : "write";
  }
  const char* read_some() {
    const size_t at = below(model_.size() + 100);
    std::vector<char> now(length());
    const ssize_t got = pread(file_, now.data(), now.size(), static_cast<off_t>(at));
    const size_t wanted = at >= model_.size() ? 0 : std::min(now.size(), model_.size() - at);
    if (got != static_cast<ssize_t>(wanted)) return "length of a read";
    return std::equal(now.begin(), now.begin() + got, model_.begin() + static_cast<long>(std::min(at, model_.size())))
               ? nullptr
               : "read";
  }
  template <class Use>
  const char* with_mapping(int protection, Use use) {
    if (model_.empty()) return nullptr;
    void* const map = mmap(nullptr, model_.size(), protection, MAP_SHARED, file_, 0);
    if (map == MAP_FAILED) return "mmap";
    const size_t at = below(model_.size());
    const char* const wrong = use(static_cast<char*>(map), at, std::min(length(), model_.size() - at));
    if (below(2) == 0) msync(map, model_.size(), MS_SYNC);
    munmap(map, model_.size());
    return wrong;
  }
  const char* map_and_write() {
    return with_mapping(PROT_READ | PROT_WRITE, [&](char* map, size_t at, size_t size) {
      const std::vector<char> bytes = data(size);
      memcpy(map + at, bytes.data(), size);
      model_write(at, bytes);
      return static_cast<const char*>(nullptr);
    });
  }
  const char* map_and_read() {
    return with_mapping(PROT_READ, [&](const char* map, size_t at, size_t size) {
      return memcmp(map + at, model_.data() + at, size) == 0 ? nullptr : "mapping";
    });
  }
  const char* truncate() {
    const size_t size = below(kMost);
    model_.resize(size);
    return ftruncate(file_, static_cast<off_t>(size)) == 0 ? nullptr : "truncate";
  }
  const char* punch() {
    const size_t at = below(model_.size()), size = length();
    if (fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                  static_cast<off_t>(size)) != 0)
      return errno == EOPNOTSUPP ? nullptr : "hole";
    for (size_t i = at; i < std::min(at + size, model_.size()); ++i) model_[i] = 0;
    return nullptr;
  }
  const char* copy_range() {
    if (model_.empty()) return nullptr;
    const size_t from = below(model_.size()), size = std::min(length(), model_.size() - from);
    const size_t to = below(kMost - size);
    if (from < to + size && to < from + size) return nullptr;
    auto from_offset = static_cast<off_t>(from), to_offset = static_cast<off_t>(to);
    const ssize_t copied = copy_file_range(file_, &from_offset, file_, &to_offset, size, 0);
    if (copied < 0) return errno == EOPNOTSUPP || errno == EXDEV ? nullptr : "copy";
    model_write(to, std::vector<char>(model_.begin() + static_cast<long>(from),
                                      model_.begin() + static_cast<long>(from) + copied));
    return nullptr;
  }
  const char* reopen() {
    close(file_);
    file_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    return file_ >= 0 ? nullptr : "open";
  }

  const std::string path_;
  std::mt19937_64 random_;
  std::vector<char> model_;
  int file_;
};

}  // namespace

int random_file(const char* folder, unsigned long seed, long steps) {
  RandomFile file{std::string{folder} + "/random", seed};
  for (long step = 0; step < steps; ++step) {
    const char* wrong = file.step();
    if (wrong == nullptr && step % 50 == 0) wrong = file.compare_all();
    if (wrong == nullptr) continue;
    std::printf("step %ld of seed %lu: %s (errno %d)\n", step, seed, wrong, errno);
    return 1;
  }
  const char* const wrong = file.compare_all();
  std::printf("%ld steps: %s\n", steps, wrong == nullptr ? "as in memory" : wrong);
  return wrong == nullptr ? 0 : 1;
}
