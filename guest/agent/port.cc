#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <new>

#include "guest/agent/agent.h"

namespace bulkhead::agent {
namespace {

constexpr int kPortTimeoutMs = 10'000;

void sleep_a_millisecond() {  // often several: the guest's clock may tick slowly, so sleeps are not counted as time
  const timespec pause{0, 1'000'000};
  nanosleep(&pause, nullptr);
}

long now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

// The port's name arrives in a control message after the port itself, so an unnamed port is not yet the wrong one.
bool port_has_name(const char* port, const char* name) {
  char path[300], text[64] = {};
  snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", port);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  if (size <= 0) return false;
  text[strcspn(text, "\n")] = 0;
  return strcmp(text, name) == 0;
}

class VirtioPort final : public Port {
 public:
  explicit VirtioPort(int fd) : fd_{fd} {}
  bool prepare(short wanted, pollfd& entry) override {
    entry = {fd_, wanted, 0};
    return false;
  }
  short ready(const pollfd& entry) override {
    // A hang-up reads as the end of the stream: the monitor has not opened its end.
    return static_cast<short>((entry.revents & (POLLIN | POLLOUT)) | ((entry.revents & POLLHUP) != 0 ? POLLIN : 0));
  }
  ssize_t read(void* data, size_t size) override { return ::read(fd_, data, size); }
  ssize_t write(const void* data, size_t size) override { return ::write(fd_, data, size); }

 private:
  const int fd_;
};

int find_port(const char* name) {
  DIR* const ports = opendir("/sys/class/virtio-ports");
  if (ports == nullptr) return -1;
  int found = -1;
  while (const dirent* entry = found < 0 ? readdir(ports) : nullptr) {
    if (entry->d_name[0] == '.' || !port_has_name(entry->d_name, name)) continue;
    char path[300];
    snprintf(path, sizeof path, "/dev/%s", entry->d_name);
    found = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  }
  closedir(ports);
  return found;
}

}  // namespace

Port* open_port(const char* name) {
  alignas(VirtioPort) static std::byte storage[sizeof(VirtioPort)];
  const long deadline = now_ms() + kPortTimeoutMs;
  do {
    if (const int fd = find_port(name); fd >= 0) return new (storage) VirtioPort{fd};
    if (Port* const port = open_xen_port(kXenDirectory)) return port;
    sleep_a_millisecond();
  } while (now_ms() < deadline);
  return nullptr;
}

// The file is there a little before the disk can be opened.
bool wait_for_disk(const char* path, int milliseconds) {
  const long deadline = now_ms() + milliseconds;
  for (;;) {
    if (const int fd = open(path, O_RDONLY | O_CLOEXEC); fd >= 0) {
      close(fd);
      return true;
    }
    if (now_ms() >= deadline) return false;
    sleep_a_millisecond();
  }
}

}  // namespace bulkhead::agent
