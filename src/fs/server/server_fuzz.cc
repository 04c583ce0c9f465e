// A guest that sends whatever it likes: requests one behind the other, each 2 bytes of length, an opcode, a node and a
// body. Nothing outside of the shared folder changes.
#include <fcntl.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "fs/server/server.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::fs;
  namespace files = std::filesystem;
  static const files::path folder = [] {
    std::string name = files::temp_directory_path() / "bulkhead-files-fuzz-XXXXXX";
    return files::path{::mkdtemp(name.data())};
  }();
  files::remove_all(folder / "shared");
  files::create_directories(folder / "shared/sub");
  std::ofstream{folder / "shared/a"} << "content";
  std::ofstream{folder / "outside"} << "stays";
  std::vector<Share> shares;
  shares.push_back({"s", UniqueFd{::open((folder / "shared").c_str(), O_PATH | O_CLOEXEC)}, false});
  Counts counts;
  Server server{std::move(shares), {}, counts};
  static Reply reply;
  const auto send = [&](u32 opcode, u64 node, std::span<const std::byte> body) {
    fuse_in_header header{};
    header.len = static_cast<u32>(sizeof header + body.size());
    header.opcode = opcode;
    header.nodeid = node;
    std::vector<std::byte> message(sizeof header + body.size());
    std::memcpy(message.data(), &header, sizeof header);
    std::ranges::copy(body, message.begin() + sizeof header);
    (void)server.handle(message, reply);
  };
  fuse_init_in init{};
  init.major = FUSE_KERNEL_VERSION;
  init.minor = FUSE_KERNEL_MINOR_VERSION;
  send(FUSE_INIT, 0, std::as_bytes(std::span{&init, 1}));
  send(FUSE_LOOKUP, FUSE_ROOT_ID, std::as_bytes(std::span{"s"}));
  std::span<const std::byte> rest{reinterpret_cast<const std::byte*>(data), size};
  while (rest.size() >= 4) {
    const std::size_t length = std::to_integer<std::size_t>(rest[0]) | std::to_integer<std::size_t>(rest[1]) << 8;
    const auto opcode = std::to_integer<u32>(rest[2]);
    const auto node = std::to_integer<u64>(rest[3]);
    rest = rest.subspan(4);
    const auto body = rest.first(std::min(length, rest.size()));
    rest = rest.subspan(body.size());
    // Sparse files of any length are honest, but comparing them is not quick.
    if (opcode == FUSE_SYNCFS || opcode == FUSE_FALLOCATE) continue;
    send(opcode, node, body);
  }
  std::ifstream outside{folder / "outside"};
  std::string text;
  outside >> text;
  if (text != "stays" || std::distance(files::directory_iterator{folder}, {}) != 2) __builtin_trap();
  return 0;
}
