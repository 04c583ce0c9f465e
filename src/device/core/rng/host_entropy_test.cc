#include "device/core/rng/host_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace bulkhead::device {
namespace {

TEST(HostEntropy, FillsEverythingDifferently) {
  HostEntropy source;
  std::vector<std::byte> first(100000), second(100000);
  source.fill(first);
  source.fill(second);
  EXPECT_NE(first, second);
  // 100000 bytes have about 390 zeroes; a part not filled would show.
  EXPECT_LT(std::ranges::count(first, std::byte{0}), 1000);
  source.fill({});
}

}  // namespace
}  // namespace bulkhead::device
