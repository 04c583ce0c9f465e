#include "block/crypto/sector_cipher.h"

#include <openssl/evp.h>

#include <array>
#include <cstring>

namespace bulkhead::block {

struct SectorCipher::Context {
  EVP_CIPHER_CTX* const evp = EVP_CIPHER_CTX_new();
  EVP_CIPHER_CTX* const essiv = EVP_CIPHER_CTX_new();  // makes the vector, with ESSIV
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() {
    EVP_CIPHER_CTX_free(evp);
    EVP_CIPHER_CTX_free(essiv);
  }
};

namespace {

using Iv = std::array<unsigned char, 16>;
constexpr int kEncrypt = 1, kDecrypt = 0;

const EVP_CIPHER* find_cipher(const std::string& mode, std::size_t bytes) {
  if (mode == "xts") return bytes == 32 ? EVP_aes_128_xts() : bytes == 64 ? EVP_aes_256_xts() : nullptr;
  if (mode != "cbc") return nullptr;
  return bytes == 16 ? EVP_aes_128_cbc() : bytes == 24 ? EVP_aes_192_cbc() : bytes == 32 ? EVP_aes_256_cbc() : nullptr;
}

bool set_key(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const unsigned char* key, int way) {
  return context != nullptr && EVP_CipherInit_ex(context, cipher, nullptr, key, nullptr, way) == 1 &&
         EVP_CIPHER_CTX_set_padding(context, 0) == 1;
}

}  // namespace

SectorCipher::SectorCipher() {
  encrypting_.first = std::make_unique<Context>();
  decrypting_.first = std::make_unique<Context>();
}
SectorCipher::~SectorCipher() = default;

Result<std::unique_ptr<SectorCipher>> SectorCipher::create(const std::string& cipher, const std::string& mode,
                                                           std::span<const std::byte> key) {
  const std::size_t dash = mode.find('-');
  const std::string chain = mode.substr(0, dash), vector = dash == std::string::npos ? "" : mode.substr(dash + 1);
  const EVP_CIPHER* const found = cipher == "aes" ? find_cipher(chain, key.size()) : nullptr;
  const bool essiv = vector == "essiv:sha256" && chain == "cbc";
  if (found == nullptr || (vector != "plain64" && vector != "plain" && !essiv))
    return fail("the cipher {}-{} with a key of {} bits is not one that this program has", cipher, mode,
                key.size() * 8);
  std::unique_ptr<SectorCipher> out{new SectorCipher};
  const auto* const bytes = reinterpret_cast<const unsigned char*>(key.data());
  out->narrow_ = vector == "plain";
  out->essiv_ = essiv;
  bool good = set_key(out->encrypting_.first->evp, found, bytes, kEncrypt) &&
              set_key(out->decrypting_.first->evp, found, bytes, kDecrypt);
  if (good && essiv) {
    std::array<unsigned char, 32> hash;
    good = EVP_Digest(bytes, key.size(), hash.data(), nullptr, EVP_sha256(), nullptr) == 1;
    for (Pool* const pool : {&out->encrypting_, &out->decrypting_})
      good = good && set_key(pool->first->essiv, EVP_aes_256_ecb(), hash.data(), kEncrypt);
  }
  // XTS keys whose halves are the same are refused by the library, too.
  if (!good) return fail("the key for {}-{} is not one that can be used", cipher, mode);
  return out;
}

std::unique_ptr<SectorCipher::Context> SectorCipher::take(Pool& pool) {
  const std::lock_guard lock{pool.mutex};
  if (!pool.idle.empty()) {
    auto out = std::move(pool.idle.back());
    pool.idle.pop_back();
    return out;
  }
  auto out = std::make_unique<Context>();
  const Context& from = *pool.first;
  if (EVP_CIPHER_CTX_copy(out->evp, from.evp) != 1) return nullptr;
  if (EVP_CIPHER_CTX_get0_cipher(from.essiv) != nullptr && EVP_CIPHER_CTX_copy(out->essiv, from.essiv) != 1)
    return nullptr;
  return out;
}

bool SectorCipher::run(Pool& pool, u64 sector, std::span<std::byte> data) {
  std::unique_ptr<Context> context = take(pool);
  if (context == nullptr || !run(*context, sector, data)) return false;
  const std::lock_guard lock{pool.mutex};
  pool.idle.push_back(std::move(context));
  return true;
}

bool SectorCipher::run(Context& context, u64 sector, std::span<std::byte> data) const {
  for (; !data.empty(); data = data.subspan(kSector), ++sector) {
    Iv iv{};
    const u64 number = narrow_ ? sector & 0xffffffff : sector;
    std::memcpy(iv.data(), &number, sizeof number);
    int done = 0;
    if (essiv_ && EVP_CipherUpdate(context.essiv, iv.data(), &done, iv.data(), sizeof iv) != 1) return false;
    auto* const at = reinterpret_cast<unsigned char*>(data.data());
    if (EVP_CipherInit_ex(context.evp, nullptr, nullptr, nullptr, iv.data(), -1) != 1 ||
        EVP_CipherUpdate(context.evp, at, &done, at, static_cast<int>(kSector)) != 1)
      return false;
  }
  return true;
}

}  // namespace bulkhead::block
