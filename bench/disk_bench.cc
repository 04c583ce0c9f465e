// As many requests a second as a disk takes: the same sequence of offsets as `qemu-img bench` with a step, so that both
// can be compared on the same image. Prints "Run completed in S seconds." as it does.
//   disk_bench COUNT DEPTH SIZE STEP read|write DISK     (DISK as --disk has it)
#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "block/disk/open_disk.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::block;

struct Run {
  Disk& disk;
  u64 left, size, step;
  bool write;
  u64 offset = 0;
  u64 failed = 0;
};

Task<void> lane(Run* run) {
  const AlignedMemory memory{run->size};
  std::memset(memory.data(), 0x42, run->size);
  const IoBuffer buffer = memory.buffer();
  while (run->left > 0) {
    --run->left;
    const u64 at = run->offset;
    run->offset = (run->offset + run->step) % run->disk.size_bytes();
    IoStatus status;
    if (run->write)
      status = co_await run->disk.write(at, Buffers{&buffer, 1});
    else
      status = co_await run->disk.read(at, Buffers{&buffer, 1});
    if (status != IoStatus::kOk) ++run->failed;
  }
}

Detached counted_lane(Run* run, unsigned* lanes, std::binary_semaphore* done) {
  co_await lane(run);
  if (--*lanes == 0) done->release();
}

u64 number(const char* text) {
  u64 value = 0;
  std::from_chars(text, text + std::strlen(text), value);
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    fmt::print(stderr, "usage: disk_bench COUNT DEPTH SIZE STEP read|write DISK\n");
    return 2;
  }
  auto config = parse_disk(argv[6]);
  if (config) config->read_only = std::strcmp(argv[5], "read") == 0;
  auto disk = config ? open_disk(*config) : std::unexpected(config.error());
  if (!disk) {
    fmt::print(stderr, "disk_bench: {}\n", disk.error().message);
    return 1;
  }
  Run run{**disk, number(argv[1]), number(argv[3]), number(argv[4]), !config->read_only};
  unsigned lanes = static_cast<unsigned>(number(argv[2]));
  std::binary_semaphore done{0};
  const auto begin = std::chrono::steady_clock::now();
  (*disk)->executor().post([&] {
    for (unsigned i = 0, count = lanes; i < count; ++i) counted_lane(&run, &lanes, &done);
  });
  done.acquire();
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  fmt::print("Run completed in {:.3f} seconds.\n", time.count());
  return run.failed == 0 ? 0 : 1;
}
