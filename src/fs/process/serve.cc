#include "fs/process/serve.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <charconv>
#include <thread>

#include "fs/process/confine.h"
#include "fs/process/file_server.h"

namespace bulkhead::fs {
namespace {

struct Arguments {
  unsigned lanes = 0;
  std::vector<ShareSpec> shares;
};

Result<Arguments> parse(int argc, char** argv) {
  Arguments out;
  const std::string_view count = argc > 2 ? argv[2] : "";
  const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), out.lanes);
  if (error != std::errc{} || end != count.data() + count.size() || out.lanes < 1 ||
      out.lanes > FileServer::kMaxLanes || (argc - 3) % 3 != 0)
    return fail("`bulkhead {}` is started by Bulkhead itself", kServeArgument);
  for (int i = 3; i < argc; i += 3) out.shares.push_back({argv[i], argv[i + 2], std::string_view{argv[i + 1]} == "ro"});
  return out;
}

// False when the other side has gone.
bool read_all(int socket, std::byte* to, std::size_t size, std::size_t least, std::size_t& got) {
  while (got < least) {
    const ssize_t now = ::recv(socket, to + got, size - got, 0);
    if (now < 0 && errno == EINTR) continue;
    if (now <= 0) return false;
    got += static_cast<std::size_t>(now);
  }
  return true;
}

bool write_all(int socket, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t now = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (now < 0 && errno == EINTR) continue;
    if (now <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(now));
  }
  return true;
}

// One request after another, which say their own length. The monitor sends whole ones, so a length that cannot be is a
// monitor that we do not understand. A request without a reply may have the next one right behind it.
void serve_lane(int socket, Server& server) {
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kMaxRequest);
  Reply reply;
  std::size_t got = 0;
  while (read_all(socket, buffer.get(), kMaxRequest, sizeof(fuse_in_header), got)) {
    u32 length;
    std::memcpy(&length, buffer.get(), sizeof length);
    if (length < sizeof(fuse_in_header) || length > kMaxRequest) return;
    if (!read_all(socket, buffer.get(), kMaxRequest, length, got)) return;
    if (!write_all(socket, server.handle({buffer.get(), length}, reply))) return;
    got -= length;
    std::memmove(buffer.get(), buffer.get() + length, got);
  }
}

u64 descriptors_left() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

Result<void> serve_all(int argc, char** argv) {
  BH_ASSIGN(const Arguments arguments, parse(argc, argv));
  void* const mapped = ::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED, kCountsFd, 0);
  if (mapped == MAP_FAILED) return fail("`bulkhead {}` is started by Bulkhead itself", kServeArgument);
  auto* const counts = static_cast<Counts*>(mapped);
  ::close(kCountsFd);
  ::fcntl(kWordsFd, F_SETFD, FD_CLOEXEC);
  BH_ASSIGN(Confined confined, confine(arguments.shares));
  if (confined.namespaces) counts->add(Count::kConfined);
  ServerConfig config;
  config.switch_users = confined.switch_users;
  config.descriptors = confined.descriptors;
  // A quarter for open files; some for ourselves.
  const u64 descriptors = descriptors_left();
  BH_TRY(seal_server(confined.switch_users));
  config.most_handles = std::min(config.most_handles, descriptors / 4);
  config.most_nodes =
      std::min(config.most_nodes, descriptors - config.most_handles - std::min<u64>(descriptors / 8, 64));
  Server server{std::move(confined.shares), config, *counts};
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < arguments.lanes; ++i)
    threads.emplace_back([&server, i] { serve_lane(kFirstLaneFd + static_cast<int>(i), server); });
  (void)!::write(kWordsFd, kReadyWord.data(), kReadyWord.size());
  ::close(kWordsFd);
  serve_lane(kFirstLaneFd, server);
  for (std::thread& thread : threads) thread.join();
  return {};
}

}  // namespace

bool asked_to_serve(int argc, char** argv) { return argc > 1 && std::string_view{argv[1]} == kServeArgument; }

int serve(int argc, char** argv) {
  const Result<void> done = serve_all(argc, argv);
  if (done) return 0;
  (void)!::write(kWordsFd, done.error().message.data(), done.error().message.size());
  return 1;
}

}  // namespace bulkhead::fs
