#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

int open_port(const char* name) {
  const long deadline = now_ms() + kPortTimeoutMs;
  int port;
  while ((port = find_port(name)) < 0 && now_ms() < deadline) sleep_a_millisecond();
  return port;
}

bool wait_for_path(const char* path, int milliseconds) {
  const long deadline = now_ms() + milliseconds;
  while (access(path, F_OK) != 0) {
    if (now_ms() >= deadline) return false;
    sleep_a_millisecond();
  }
  return true;
}

}  // namespace bulkhead::agent
