// Process 1 of the zone: see README.md for the order of things.
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"

namespace bulkhead::agent {

bool failed_plainly(Failure& failure, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure.text, sizeof failure.text, format, arguments);
  va_end(arguments);
  return false;
}

bool failed(Failure& failure, const char* format, ...) {
  failure.error = errno;
  va_list arguments;
  va_start(arguments, format);
  const int used = vsnprintf(failure.text, sizeof failure.text, format, arguments);
  va_end(arguments);
  if (used > 0 && static_cast<unsigned>(used) < sizeof failure.text)
    snprintf(failure.text + used, sizeof failure.text - used, ": %s", strerror(failure.error));
  return false;
}

void power_off() {
  sync();
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

void complain(const Failure& failure) {
  const int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
  if (log < 0) return;
  char line[sizeof failure.text + 32];
  const int size = snprintf(line, sizeof line, "<2>bulkhead-agent: %s\n", failure.text);
  (void)!write(log, line, static_cast<size_t>(size));  // one write is one record
  close(log);
}

namespace {

void bring_loopback_up() {
  const int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) return;
  ifreq request{};
  strcpy(request.ifr_name, "lo");
  if (ioctl(socket_fd, SIOCGIFFLAGS, &request) == 0) {
    request.ifr_flags |= IFF_UP;
    ioctl(socket_fd, SIOCSIFFLAGS, &request);
  }
  close(socket_fd);
}

}  // namespace
}  // namespace bulkhead::agent

int main() {
  using namespace bulkhead::agent;
  if (getpid() != 1) {
    fputs("bulkhead-agent is the first process of a zone and does nothing elsewhere\n", stderr);
    return 1;
  }
  Failure failure;
  mount_early();
  if (!load_modules(failure)) complain(failure);  // the port may still be there: built in
  Port* const port = open_port(kPortName);
  if (port == nullptr) {
    failed_plainly(failure, "no virtio-console port named %s and no Xen channel appeared", kPortName);
    complain(failure);
    power_off();
  }
  Failure root_failure;
  if (!enter_root(root_failure)) {
    complain(root_failure);
    if (failure.text[0] != 0) root_failure = failure;  // a module that did not load explains more
  } else if (!mount_files(root_failure)) {
    complain(root_failure);
  }
  bring_loopback_up();
  serve(*port, root_failure);
  power_off();
}
