// The guest's data through a cipher. With LUKS a sector's number is its place in the file that holds it, with the old
// AES its place on the disk [qcow2 "Data encryption"].
#include <fstream>
#include <iterator>

#include "block/crypto/luks1.h"
#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::qcow2 {

namespace spec = bulkhead::spec::qcow2;

namespace {

constexpr u64 kMostKey = 64_KiB;
constexpr u64 kInline = 32_KiB;  // longer data is worked on by a helper thread

// AES-128 in CBC; the key is the passphrase's first bytes.
Result<std::unique_ptr<SectorCipher>> old_cipher(const std::string& key) {
  std::array<std::byte, 16> bytes{};
  for (std::size_t i = 0; i < std::min(bytes.size(), key.size()); ++i) bytes[i] = std::byte{static_cast<u8>(key[i])};
  return SectorCipher::create("aes", "cbc-plain64", bytes);
}

}  // namespace

Result<std::string> read_key(const std::string& path) {
  std::ifstream in{path, std::ios::binary};
  std::string key{std::istreambuf_iterator<char>{in}, {}};
  if (!in) return fail("cannot read the key file '{}'", path);
  if (key.empty() || key.size() > kMostKey) return fail("the key file '{}' must hold 1 to {} bytes", path, kMostKey);
  return key;
}

Task<Result<void>> Qcow2Node::unlock(OpenRequest request) {
  const auto file = request.options.find("key-file");
  if (file == request.options.end()) {
    // Who opens an image alone is after its tables, which anybody can read.
    if (options_.as_it_is || request.no_backing) co_return Result<void>{};
    co_return fail("it is encrypted; say where its key is: key-file=FILE");
  }
  // Whoever has the old one has weak encryption: its contents can be got out, into another image.
  if (header_.crypt_method == spec::kAesCrypt && !read_only())
    co_return fail("it is encrypted in the old way (aes), which is read only; convert it to encrypt.format=luks");
  BH_CO_ASSIGN(const std::string key, read_key(file->second));
  if (header_.crypt_method == spec::kAesCrypt) {
    BH_CO_ASSIGN(cipher_, old_cipher(key));
    co_return Result<void>{};
  }
  AlignedMemory area{header_.encryption->length};
  if (!area) co_return fail("no memory for its LUKS header");
  const IoStatus status = co_await this->file().read_bytes(header_.encryption->offset, area.bytes());
  if (status != IoStatus::kOk) co_return fail("its LUKS header: {}", text_of(status));
  BH_CO_ASSIGN(const Luks1Header luks, parse_luks1(area.bytes()));
  Result<std::unique_ptr<SectorCipher>> opened;
  std::function<void()> work = [&] { opened = unlock_luks1(luks, area.bytes(), key); };
  co_await executor().call(work);
  if (!opened) co_return std::unexpected(opened.error());
  cipher_ = std::move(*opened);
  co_return Result<void>{};
}

Task<IoStatus> Qcow2Node::read_data(u64 guest, u64 host, Buffers to) {
  if (!header_.encrypted()) return data().read(host, to);
  return read_encrypted(guest, host, to);
}

Task<IoStatus> Qcow2Node::write_data(u64 guest, u64 host, Buffers from) {
  if (!header_.encrypted()) return data().write(host, from);
  return write_encrypted(guest, host, from);
}

// Through memory of ours: neither is the guest to see what is encrypted, nor may it change under our hands.
Task<bool> Qcow2Node::recode(Recode how, u64 guest, u64 host, std::span<std::byte> bytes) {
  const u64 sector = (header_.crypt_method == spec::kAesCrypt ? guest : host) / SectorCipher::kSector;
  if (bytes.size() <= kInline) co_return ((*cipher_).*how)(sector, bytes);
  bool good = false;
  std::function<void()> work = [&] { good = ((*cipher_).*how)(sector, bytes); };
  co_await executor().call(work);
  co_return good;
}

Task<IoStatus> Qcow2Node::read_encrypted(u64 guest, u64 host, Buffers to) {
  if (cipher_ == nullptr) {
    note_error("it is encrypted, and no key-file was given");
    co_return IoStatus::kUnsupported;
  }
  const AlignedMemory memory{total_bytes(to)};
  if (!memory) co_return IoStatus::kIoError;
  BH_IO_TRY(co_await data().read_bytes(host, memory.bytes()));
  if (!co_await recode(&SectorCipher::decrypt, guest, host, memory.bytes())) co_return IoStatus::kIoError;
  copy_in(to, 0, memory.bytes());
  co_return IoStatus::kOk;
}

Task<IoStatus> Qcow2Node::write_encrypted(u64 guest, u64 host, Buffers from) {
  if (cipher_ == nullptr) {
    note_error("it is encrypted, and no key-file was given");
    co_return IoStatus::kUnsupported;
  }
  const AlignedMemory memory{total_bytes(from)};
  if (!memory) co_return IoStatus::kIoError;
  copy_out(from, 0, memory.bytes());
  if (!co_await recode(&SectorCipher::encrypt, guest, host, memory.bytes())) co_return IoStatus::kIoError;
  co_return co_await data().write_bytes(host, memory.bytes());
}

}  // namespace bulkhead::block::qcow2
