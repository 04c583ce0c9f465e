// The other end of a file system device's lanes: answers as told.
#pragma once
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"

namespace bulkhead::test {

class FakeFileServer {
 public:
  // What is sent back for a request, as bytes: header and all. Empty: nothing. On the lanes' threads.
  using Answer = std::function<std::string(const fuse_in_header&, std::string_view body)>;

  FakeFileServer(unsigned lanes, Answer answer) : answer_{std::move(answer)} {
    for (unsigned i = 0; i < lanes; ++i) {
      int ends[2];
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) continue;
      device_ends_.emplace_back(ends[0]);
      ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
      own_ends_.emplace_back(ends[1]);
      threads_.emplace_back([this, fd = ends[1]] { serve(fd); });
    }
  }
  ~FakeFileServer() {
    end();
    for (std::thread& thread : threads_) thread.join();
  }
  std::vector<UniqueFd> take_lanes() { return std::move(device_ends_); }
  void end() {
    for (const UniqueFd& fd : own_ends_) ::shutdown(fd.get(), SHUT_RDWR);
  }
  unsigned requests() const { return requests_; }
  std::atomic<bool> held{false};  // answers wait

  static std::string reply(const fuse_in_header& to, std::string_view payload, int error = 0) {
    const fuse_out_header header{static_cast<unsigned>(sizeof header + payload.size()), -error, to.unique};
    return std::string{reinterpret_cast<const char*>(&header), sizeof header} + std::string{payload};
  }

 private:
  static bool read_all(int fd, void* to, std::size_t size) {
    for (std::size_t done = 0; done < size;) {
      const ssize_t got = ::recv(fd, static_cast<char*>(to) + done, size - done, 0);
      if (got <= 0) return false;
      done += static_cast<std::size_t>(got);
    }
    return true;
  }
  void serve(int fd) {
    fuse_in_header header;
    while (read_all(fd, &header, sizeof header)) {
      std::string body(header.len - sizeof header, '\0');
      if (!read_all(fd, body.data(), body.size())) return;
      ++requests_;
      while (held) std::this_thread::yield();
      const std::string answer = answer_(header, body);
      for (std::size_t done = 0; done < answer.size();) {
        const ssize_t sent = ::send(fd, answer.data() + done, answer.size() - done, MSG_NOSIGNAL);
        if (sent <= 0) return;
        done += static_cast<std::size_t>(sent);
      }
    }
  }
  const Answer answer_;
  std::vector<UniqueFd> device_ends_, own_ends_;
  std::atomic<unsigned> requests_{0};
  std::vector<std::thread> threads_;
};

// A request of the guest's kernel.
inline std::string fuse_request(unsigned opcode, std::string_view body, unsigned long unique = 7) {
  fuse_in_header header{};
  header.len = static_cast<unsigned>(sizeof header + body.size());
  header.opcode = opcode;
  header.unique = unique;
  return std::string{reinterpret_cast<const char*>(&header), sizeof header} + std::string{body};
}

}  // namespace bulkhead::test
