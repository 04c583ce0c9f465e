// Encrypts and decrypts sectors of 512 bytes as dm-crypt and QEMU do, by the names of LUKS: AES in XTS or CBC, with the
// sector's number (or its encryption, ESSIV) as initialisation vector.
#pragma once
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/ints.h"
#include "base/result.h"

namespace bulkhead::block {

class SectorCipher {
 public:
  static constexpr u64 kSector = 512;

  // `mode`: "xts-plain64", "cbc-essiv:sha256", ... Errors: a cipher, a mode or a length of key that we do not have, by
  // name.
  static Result<std::unique_ptr<SectorCipher>> create(const std::string& cipher, const std::string& mode,
                                                      std::span<const std::byte> key);
  ~SectorCipher();
  SectorCipher(const SectorCipher&) = delete;
  SectorCipher& operator=(const SectorCipher&) = delete;

  // In place; whole sectors, the first of number `sector`. Any thread, several at once. False: the library failed.
  bool encrypt(u64 sector, std::span<std::byte> data) { return run(encrypting_, sector, data); }
  bool decrypt(u64 sector, std::span<std::byte> data) { return run(decrypting_, sector, data); }

 private:
  struct Context;
  // As many contexts as were in use at once.
  struct Pool {
    std::unique_ptr<Context> first;  // the others are copies of it
    std::mutex mutex;
    std::vector<std::unique_ptr<Context>> idle;
  };
  SectorCipher();
  static std::unique_ptr<Context> take(Pool& pool);
  bool run(Pool& pool, u64 sector, std::span<std::byte> data);
  bool run(Context& context, u64 sector, std::span<std::byte> data) const;
  Pool encrypting_, decrypting_;
  bool essiv_ = false;
  bool narrow_ = false;  // "plain": 32 bits of the number
};

}  // namespace bulkhead::block
