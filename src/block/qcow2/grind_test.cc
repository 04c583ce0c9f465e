// Good images of every kind with a few bytes changed, and all that can be done with them.
#include "block/qcow2/grind.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "block/qcow2/compression.h"

namespace bulkhead::block::qcow2 {
namespace {

std::vector<std::byte> good_image(Executor& executor, const CreateOptions& options) {
  auto file = std::make_shared<SmallFile>(executor, std::vector<std::byte>{});
  EXPECT_TRUE(executor.run(format_image(file, options)));
  Opener opener{executor, {}};
  OpenRequest request{.path = "/nonexistent/image", .format = "qcow2", .access = DiskAccess::kReadWrite};
  auto opened = executor.run(Qcow2Node::open(opener, file, request));
  EXPECT_TRUE(opened);
  auto* const image = static_cast<Qcow2Node*>(opened->get());
  const std::vector<std::byte> data(9000, std::byte{7});
  EXPECT_EQ(executor.run(image->write_bytes(1000, data)), IoStatus::kOk);
  if (options.version >= 3) {
    EXPECT_TRUE(executor.run(image->add_bitmap("b", 4096, true)));
  }
  EXPECT_TRUE(executor.run(image->create_snapshot("s", 1, 2)));
  EXPECT_EQ(executor.run(image->write_bytes(5000, data)), IoStatus::kOk);
  const u64 cluster = image->layout().cluster();
  std::vector<std::byte> whole(cluster, std::byte{3}), packed(cluster);
  const u64 length = pack(image->header().compression, whole, std::span{packed}.first(cluster - 1));
  if (length != 0) {
    EXPECT_EQ(executor.run(image->write_compressed(options.size / 2, std::span{packed}.first(length))), IoStatus::kOk);
  }
  EXPECT_EQ(executor.run(image->write_zeroes(options.size - 2 * cluster, cluster)), IoStatus::kOk);
  EXPECT_EQ(executor.run(close_graph(*opened)), IoStatus::kOk);
  executor.run([&] { opened->reset(); });
  return file->bytes;
}

void spoil(std::vector<std::byte>& bytes, std::mt19937_64& random) {
  for (u64 changes = 1 + random() % 6; changes != 0; --changes) {
    // Mostly where numbers are: whole words, the header, and places that hold something.
    u64 at = random() % 3 == 0 ? random() % 256 : random() % bytes.size();
    for (unsigned tries = 0; tries < 200 && bytes[at] == std::byte{0}; ++tries) at = random() % bytes.size();
    at &= ~u64{7};
    if (at + 8 > bytes.size()) continue;
    u64 word;
    std::memcpy(&word, &bytes[at], 8);
    switch (random() % 6) {
      case 0:
        word ^= u64{1} << (random() % 64);
        break;
      case 1:
        word = random();
        break;
      case 2:
        word = random() % 2 == 0 ? 0 : ~u64{0};
        break;
      case 3:
        std::memcpy(&word, &bytes[random() % (bytes.size() / 8) * 8], 8);
        break;
      case 4:
        word += u64{1} << (random() % 8 * 8);
        break;
      default:
        bytes.resize(std::max<u64>(bytes.size() - random() % 2000, 200));
        continue;
    }
    std::memcpy(&bytes[at], &word, 8);
  }
}

TEST(Grind, SpoiltImagesDoNoHarm) {
  const char* const wanted = std::getenv("GRIND_ROUNDS");
  const unsigned rounds = wanted == nullptr ? 150 : static_cast<unsigned>(std::atoi(wanted));
  auto executor = Executor::create({.engine = IoEngineKind::kThreads});
  ASSERT_TRUE(executor);
  std::vector<CreateOptions> kinds(6);
  for (CreateOptions& one : kinds) one.size = 1_MiB, one.cluster_bits = 9;
  kinds[1].version = 2;
  kinds[2].cluster_bits = 12, kinds[2].refcount_order = 0;
  kinds[3].cluster_bits = 14, kinds[3].extended_l2 = true;
  kinds[4].refcount_order = 6, kinds[4].lazy_refcounts = true;
  kinds[5].cluster_bits = 12, kinds[5].compression = spec::qcow2::CompressionType::kZstd, kinds[5].refcount_order = 5;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i].refcount_order == 0) continue;  // counts to one: no snapshots
    const std::vector<std::byte> good = good_image(**executor, kinds[i]);
    ASSERT_TRUE(grind_image(**executor, good));
    unsigned taken = 0;
    for (unsigned round = 0; round < rounds; ++round) {
      std::mt19937_64 random{i * 1'000'000 + round};
      std::vector<std::byte> bad = good;
      spoil(bad, random);
      taken += grind_image(**executor, bad);
    }
    EXPECT_GT(taken, rounds / 20) << "images of kind " << i << " are all refused: nothing was tried";
  }
}

}  // namespace
}  // namespace bulkhead::block::qcow2
