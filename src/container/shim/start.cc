#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/fd.h"
#include "container/bundle/read_spec.h"
#include "container/shim/actions.h"
#include "container/ttrpc/connection.h"

namespace bulkhead::container {
namespace {

Result<UniqueFd> listen_at(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  UniqueFd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  ::unlink(path.c_str());  // of a server that is gone: one that lives has been asked already
  const mode_t mask = ::umask(0077);
  const bool good = fd && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 &&
                    ::listen(fd.get(), 128) == 0;
  ::umask(mask);
  if (!good) return fail_errno("listening at {}", path);
  return fd;
}

// containerd reads what a shim has to say from the FIFO `log` in the bundle. When nobody reads, words are lost.
UniqueFd open_log() {
  UniqueFd fd{::open("log", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  return fd ? std::move(fd) : UniqueFd{::open("/dev/null", O_WRONLY | O_CLOEXEC)};
}

// In the child: lives on without containerd.
[[noreturn]] void become_server(const ShimFlags& flags, int listening) {
  ::setsid();
  const UniqueFd log = open_log();
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const int moved = ::fcntl(listening, F_DUPFD_CLOEXEC, 10);  // out of the way of the numbers below
  ::dup2(nothing, 0);
  ::dup2(nothing, 1);
  ::dup2(log.get(), 2);
  ::dup2(moved, kListeningFd);
  const std::vector<std::string> words = {
      "containerd-shim-bulkhead-v2", "-namespace", flags.space, "-address", flags.address, "-publish-binary",
      flags.publish_program,         "-id",        flags.id,    "serve"};
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execv("/proc/self/exe", arguments.data());
  ::_exit(1);
}

}  // namespace

Result<void> start_action(const ShimFlags& flags) {
  std::ifstream in{"config.json"};
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return fail("reading config.json of the bundle");
  BH_ASSIGN(const Place place, read_place(std::move(text).str()));
  const bool member = place.role == Bundle::Role::kMember;
  const std::string path = server_socket(flags, member ? place.sandbox : flags.id);
  const std::string address = "unix://" + path;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path{path}.parent_path(), error);
  const bool there = ttrpc::connect_to(path).has_value();
  if (member && !there) return fail("the zone of the sandbox {} has ended", place.sandbox);
  if (!there) {
    BH_ASSIGN(const UniqueFd listening, listen_at(path));
    const pid_t child = ::fork();
    if (child < 0) return fail_errno("starting the shim's server");
    if (child == 0) become_server(flags, listening.get());
  }
  std::ofstream{kAddressFile} << address;
  if (::write(STDOUT_FILENO, address.data(), address.size()) < 0) return fail_errno("telling the address");
  return {};
}

}  // namespace bulkhead::container
