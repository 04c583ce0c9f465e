// The host's other end of inside/vhost.sh, where there is no tool for it.
//   net_probe accept ADDRESS PORT FILE    takes one connection, sends it FILE, and prints the SHA-256 of as many bytes
//   that come
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/evp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 5 || std::strcmp(argv[1], "accept") != 0) return 2;
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = AI_NUMERICHOST | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(argv[2], argv[3], &hints, &found) != 0) return 2;
  const int listener = socket(found->ai_family, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, found->ai_addr, found->ai_addrlen) != 0 || listen(listener, 1) != 0) return perror("net_probe"), 1;
  const int connection = accept(listener, nullptr, nullptr);
  const int file = open(argv[4], O_RDONLY);
  struct stat info{};
  fstat(file, &info);
  std::thread sender{[&] {
    std::vector<char> buffer(1 << 18);
    for (ssize_t got; (got = read(file, buffer.data(), buffer.size())) > 0;)
      for (ssize_t done = 0, sent; done < got; done += sent)
        if ((sent = write(connection, buffer.data() + done, static_cast<size_t>(got - done))) <= 0) return;
  }};
  EVP_MD_CTX* const sum = EVP_MD_CTX_new();
  EVP_DigestInit_ex(sum, EVP_sha256(), nullptr);
  std::vector<char> buffer(1 << 18);
  for (off_t left = info.st_size; left > 0;) {
    const ssize_t got = read(connection, buffer.data(), buffer.size());
    if (got <= 0) break;
    EVP_DigestUpdate(sum, buffer.data(), static_cast<size_t>(got));
    left -= got;
  }
  sender.join();
  unsigned char digest[32];
  EVP_DigestFinal_ex(sum, digest, nullptr);
  for (const unsigned char byte : digest) std::printf("%02x", byte);
  std::printf("\n");
  // Not before the other side has it all.
  shutdown(connection, SHUT_WR);
  while (read(connection, buffer.data(), buffer.size()) > 0) {
  }
}
