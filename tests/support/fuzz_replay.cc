// Runs one fuzzer's function, without libFuzzer, over the files of a folder, and over variants of each: the same ones
// each time.
//   REPLAY FOLDER [VARIANTS]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes read_file(const std::filesystem::path& path) {
  std::ifstream in{path, std::ios::binary};
  return Bytes{std::istreambuf_iterator<char>{in}, {}};
}

// A few bytes changed, cut out, doubled, or taken from another input.
void change(Bytes& bytes, const Bytes& other, std::mt19937& random) {
  const auto below = [&](std::size_t limit) { return limit == 0 ? 0 : random() % limit; };
  for (unsigned i = 0, count = 1 + random() % 6; i < count; ++i) {
    if (bytes.empty()) bytes.push_back(static_cast<std::uint8_t>(random()));
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size()));
    const auto run =
        static_cast<std::ptrdiff_t>(std::min<std::size_t>(1 + below(64), static_cast<std::size_t>(bytes.end() - at)));
    switch (random() % 6) {
      case 0:
        *at = static_cast<std::uint8_t>(random());
        break;
      case 1:
        *at ^= static_cast<std::uint8_t>(1u << random() % 8);
        break;
      case 2:
        std::fill(at, at + run, static_cast<std::uint8_t>(random() % 2 == 0 ? 0 : 0xff));
        break;
      case 3:
        bytes.erase(at, at + run);
        break;
      case 4: {
        const Bytes piece(at, at + run);
        bytes.insert(at, piece.begin(), piece.end());
        break;
      }
      default: {
        if (other.empty()) break;
        const std::size_t from = below(other.size());
        const std::size_t most = std::min<std::size_t>(other.size() - from, static_cast<std::size_t>(bytes.end() - at));
        std::copy_n(other.begin() + static_cast<std::ptrdiff_t>(from), most, at);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: REPLAY FOLDER [VARIANTS]\n"), 2;
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator{argv[1], error}) paths.push_back(entry.path());
  if (paths.empty()) return std::fprintf(stderr, "replay: there is nothing in %s\n", argv[1]), 1;
  std::ranges::sort(paths);
  const unsigned long variants = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 20;
  std::vector<Bytes> inputs;
  for (const auto& path : paths) inputs.push_back(read_file(path));
  std::mt19937 random{1};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::fprintf(stderr, "%s\n", paths[i].filename().c_str());  // the last one is to blame
    LLVMFuzzerTestOneInput(inputs[i].data(), inputs[i].size());
    for (unsigned long k = 0; k < variants; ++k) {
      Bytes variant = inputs[i];
      change(variant, inputs[random() % inputs.size()], random);
      LLVMFuzzerTestOneInput(variant.data(), variant.size());
    }
  }
  std::printf("%zu inputs, %lu variants of each\n", inputs.size(), variants);
  return 0;
}
