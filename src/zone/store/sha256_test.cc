#include "zone/store/sha256.h"

#include <gtest/gtest.h>

namespace bulkhead::zone {
namespace {

std::string hash(std::string_view text) {
  Sha256 sha;
  sha.add(text);
  return sha.hex();
}

TEST(Sha256, KnownAnswers) {  // [fips-180-4] examples
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesMakeTheSameHash) {
  const std::string text(1000, 'x');
  for (const std::size_t cut : {1u, 63u, 64u, 65u, 127u, 500u}) {
    Sha256 sha;
    sha.add(std::string_view{text}.substr(0, cut));
    sha.add(std::string_view{text}.substr(cut));
    EXPECT_EQ(sha.hex(), hash(text)) << cut;
  }
}

TEST(Sha256, TextsInARowAreToldApart) {
  Sha256 a, b;
  a.add_text("ab"), a.add_text("c");
  b.add_text("a"), b.add_text("bc");
  EXPECT_NE(a.hex(), b.hex());
}

}  // namespace
}  // namespace bulkhead::zone
