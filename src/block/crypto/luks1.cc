#include "block/crypto/luks1.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/big_endian.h"
#include "base/bits.h"

namespace bulkhead::block {
namespace {

constexpr char kMagic[] = "LUKS\xba\xbe";
constexpr u32 kActive = 0x00ac71f3, kInactive = 0x0000dead, kStripes = 4000;
constexpr u32 kMostIterations = u32{1} << 25;
constexpr u64 kSector = SectorCipher::kSector, kAlignment = 4096 / kSector;
// Where fields are [luks1 "PHDR layout"].
constexpr std::size_t kCipher = 8, kMode = 40, kHash = 72, kPayload = 104, kKeyBytes = 108, kDigest = 112, kSalt = 132,
                      kIterations = 164, kUuid = 168, kSlots = 208, kSlotBytes = 48;

// Forgets what it held.
struct Secret : std::vector<std::byte> {
  using std::vector<std::byte>::vector;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { OPENSSL_cleanse(data(), size()); }
};

unsigned char* raw(std::byte* at) { return reinterpret_cast<unsigned char*>(at); }
const unsigned char* raw(const std::byte* at) { return reinterpret_cast<const unsigned char*>(at); }

Result<std::string> text_at(std::span<const std::byte> bytes, std::size_t offset, std::size_t length) {
  std::string out{reinterpret_cast<const char*>(bytes.data()) + offset, length};
  out.resize(std::min(out.size(), out.find('\0')));
  if (!std::ranges::all_of(out, [](char c) { return c > 0x20 && c < 0x7f; }))
    return fail("its LUKS header holds a name that is none");
  return out;
}

Result<const EVP_MD*> find_hash(const std::string& name) {
  for (const char* const known : {"sha1", "sha256", "sha512", "sha224", "sha384", "ripemd160"}) {
    const EVP_MD* const found = name == known ? EVP_get_digestbyname(known) : nullptr;
    if (found != nullptr) return found;
  }
  return fail("the hash {} is not one that this program has", name);
}

bool derive(const EVP_MD* hash, std::string_view secret, std::span<const std::byte> salt, u32 iterations,
            std::span<std::byte> out) {
  return PKCS5_PBKDF2_HMAC(secret.data(), static_cast<int>(secret.size()), raw(salt.data()),
                           static_cast<int>(salt.size()), static_cast<int>(iterations), hash,
                           static_cast<int>(out.size()), raw(out.data())) == 1;
}

// [luks1 "Anti-forensic information splitter"]: each block of a hash's length by the hash of its number and itself.
bool diffuse(const EVP_MD* hash, std::span<std::byte> block) {
  const auto length = static_cast<std::size_t>(EVP_MD_size(hash));
  for (std::size_t at = 0, number = 0; at < block.size(); at += length, ++number) {
    const auto part = block.subspan(at, std::min(length, block.size() - at));
    Secret input(4 + part.size());
    store_be(input.data(), static_cast<u32>(number));
    std::ranges::copy(part, input.begin() + 4);
    unsigned char out[EVP_MAX_MD_SIZE];
    if (EVP_Digest(input.data(), input.size(), out, nullptr, hash, nullptr) != 1) return false;
    std::memcpy(part.data(), out, part.size());
  }
  return true;
}

// All stripes but the last, folded.
bool fold(const EVP_MD* hash, std::span<const std::byte> stripes, u32 count, std::span<std::byte> out) {
  std::ranges::fill(out, std::byte{0});
  for (u32 i = 0; i + 1 < count; ++i) {
    for (std::size_t k = 0; k < out.size(); ++k) out[k] ^= stripes[i * out.size() + k];
    if (!diffuse(hash, out)) return false;
  }
  return true;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

u64 material_bytes(u32 key_bytes, u32 stripes) { return align_up(u64{key_bytes} * stripes, kSector); }

// The volume key behind one slot, or nothing.
Result<bool> open_slot(const Luks1Header& header, const Luks1Slot& slot, const EVP_MD* hash,
                       std::span<const std::byte> area, std::string_view passphrase, Secret& key) {
  const u64 begin = slot.material_sector * kSector, length = material_bytes(header.key_bytes, slot.stripes);
  if (!range_within(begin, length, area.size())) return fail("the material of a key is not within its LUKS header");
  Secret derived(header.key_bytes), material(length);
  if (!derive(hash, passphrase, slot.salt, slot.iterations, derived))
    return fail("the library refuses to derive a key");
  std::ranges::copy(area.subspan(begin, length), material.begin());
  BH_ASSIGN(const auto cipher, SectorCipher::create(header.cipher, header.mode, derived));
  if (!cipher->decrypt(0, material) || !fold(hash, material, slot.stripes, key)) return fail("the library fails");
  for (u32 k = 0; k < header.key_bytes; ++k) key[k] ^= material[u64{slot.stripes - 1} * header.key_bytes + k];
  std::array<std::byte, 20> digest;
  if (!derive(hash, as_text(key), header.digest_salt, header.digest_iterations, digest))
    return fail("the library fails");
  return CRYPTO_memcmp(digest.data(), header.digest.data(), digest.size()) == 0;
}

u32 iterations_for(const EVP_MD* hash, std::size_t bytes, unsigned milliseconds) {
  using Clock = std::chrono::steady_clock;
  Secret out(bytes);
  const std::array<std::byte, 32> salt{};
  for (u32 tried = 20'000;; tried *= 2) {
    const auto begin = Clock::now();
    derive(hash, "measured", salt, tried, out);
    const double taken = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    if (taken < 20 && tried < kMostIterations / 4) continue;
    return static_cast<u32>(std::clamp(tried * (milliseconds / std::max(taken, 0.001)), 1000.0, kMostIterations / 2.0));
  }
}

}  // namespace

Result<Luks1Header> parse_luks1(std::span<const std::byte> bytes) {
  if (bytes.size() < Luks1Header::kBytes || std::memcmp(bytes.data(), kMagic, 6) != 0)
    return fail("its LUKS header is none");
  if (load_be<u16>(&bytes[6]) != 1)
    return fail("its LUKS header is of version {}; 1 is known", load_be<u16>(&bytes[6]));
  Luks1Header out;
  BH_ASSIGN(out.cipher, text_at(bytes, kCipher, 32));
  BH_ASSIGN(out.mode, text_at(bytes, kMode, 32));
  BH_ASSIGN(out.hash, text_at(bytes, kHash, 32));
  BH_ASSIGN(out.uuid, text_at(bytes, kUuid, 40));
  out.payload_sector = load_be<u32>(&bytes[kPayload]);
  out.key_bytes = load_be<u32>(&bytes[kKeyBytes]);
  out.digest_iterations = load_be<u32>(&bytes[kIterations]);
  std::memcpy(out.digest.data(), &bytes[kDigest], out.digest.size());
  std::memcpy(out.digest_salt.data(), &bytes[kSalt], out.digest_salt.size());
  if (out.key_bytes == 0 || out.key_bytes > 64) return fail("its LUKS key has {} bytes", out.key_bytes);
  if (out.digest_iterations == 0 || out.digest_iterations > kMostIterations)
    return fail("its LUKS header wants {} rounds, at most {} are accepted", out.digest_iterations, kMostIterations);
  for (std::size_t i = 0; i < out.slots.size(); ++i) {
    const std::byte* const at = &bytes[kSlots + i * kSlotBytes];
    const u32 state = load_be<u32>(at);
    if (state != kActive && state != kInactive) return fail("the state of its LUKS key slot {} is none", i);
    Luks1Slot& slot = out.slots[i];
    slot.active = state == kActive;
    if (!slot.active) continue;
    slot.iterations = load_be<u32>(at + 4);
    std::memcpy(slot.salt.data(), at + 8, slot.salt.size());
    slot.material_sector = load_be<u32>(at + 40);
    slot.stripes = load_be<u32>(at + 44);
    if (slot.iterations == 0 || slot.iterations > kMostIterations || slot.stripes == 0 || slot.stripes > kStripes ||
        slot.material_sector * kSector + material_bytes(out.key_bytes, slot.stripes) > Luks1Header::kMostBytes)
      return fail("its LUKS key slot {} cannot be", i);
  }
  return out;
}

Result<std::unique_ptr<SectorCipher>> unlock_luks1(const Luks1Header& header, std::span<const std::byte> area,
                                                   std::string_view passphrase) {
  BH_ASSIGN(const EVP_MD* const hash, find_hash(header.hash));
  Secret key(header.key_bytes);
  for (const Luks1Slot& slot : header.slots) {
    if (!slot.active) continue;
    BH_ASSIGN(const bool opened, open_slot(header, slot, hash, area, passphrase, key));
    if (opened) return SectorCipher::create(header.cipher, header.mode, key);
  }
  return fail("the key is not one of its keys");
}

Result<std::vector<std::byte>> make_luks1(std::string_view passphrase, unsigned milliseconds) {
  const Luks1Header shape;
  const EVP_MD* const hash = EVP_sha256();
  const u64 material = align_up(material_bytes(shape.key_bytes, kStripes) / kSector, kAlignment);
  const u64 payload = kAlignment + material * shape.slots.size();
  std::vector<std::byte> out(payload * kSector);
  Secret key(shape.key_bytes), stripes(u64{shape.key_bytes} * kStripes), derived(shape.key_bytes),
      folded(shape.key_bytes);
  const auto random = [](std::byte* at, std::size_t bytes) {
    return RAND_bytes(raw(at), static_cast<int>(bytes)) == 1;
  };
  std::byte* const slot = &out[kSlots];
  std::array<std::byte, 16> uuid;
  if (!random(key.data(), key.size()) || !random(stripes.data(), stripes.size()) || !random(&out[kSalt], 32) ||
      !random(slot + 8, 32) || !random(uuid.data(), uuid.size()))
    return fail("the host gives no random bytes");
  const u32 rounds = iterations_for(hash, key.size(), milliseconds), few = std::max<u32>(rounds / 8, 1000);
  std::memcpy(out.data(), kMagic, 6);
  store_be<u16>(&out[6], 1);
  std::ranges::copy(std::as_bytes(std::span{shape.cipher}), &out[kCipher]);
  std::ranges::copy(std::as_bytes(std::span{shape.mode}), &out[kMode]);
  std::ranges::copy(std::as_bytes(std::span{shape.hash}), &out[kHash]);
  store_be(&out[kPayload], static_cast<u32>(payload));
  store_be(&out[kKeyBytes], shape.key_bytes);
  store_be(&out[kIterations], few);
  std::string name;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    const unsigned byte = i == 6   ? (static_cast<unsigned>(uuid[i]) & 0x0f) | 0x40
                          : i == 8 ? (static_cast<unsigned>(uuid[i]) & 0x3f) | 0x80
                                   : static_cast<unsigned>(uuid[i]);
    name += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", byte);
  }
  std::ranges::copy(std::as_bytes(std::span{name}), &out[kUuid]);
  for (std::size_t i = 0; i < shape.slots.size(); ++i) {
    std::byte* const at = &out[kSlots + i * kSlotBytes];
    store_be(at, i == 0 ? kActive : kInactive);
    store_be(at + 40, static_cast<u32>(kAlignment + i * material));
    store_be(at + 44, kStripes);
  }
  store_be(slot + 4, rounds);
  const std::span<const std::byte> salt{slot + 8, 32}, digest_salt{&out[kSalt], 32};
  if (!derive(hash, as_text(key), digest_salt, few, {&out[kDigest], 20}) ||
      !derive(hash, passphrase, salt, rounds, derived) || !fold(hash, stripes, kStripes, folded))
    return fail("the library fails");
  for (u32 k = 0; k < shape.key_bytes; ++k) stripes[stripes.size() - shape.key_bytes + k] = folded[k] ^ key[k];
  BH_ASSIGN(const auto cipher, SectorCipher::create(shape.cipher, shape.mode, derived));
  if (!cipher->encrypt(0, stripes)) return fail("the library fails");
  std::ranges::copy(stripes, &out[kAlignment * kSector]);
  return out;
}

}  // namespace bulkhead::block
