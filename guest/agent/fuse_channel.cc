// The host's files where there is no virtio: the kernel's FUSE requests go to the monitor by a channel of their own,
// and its replies come back. A message says its own length, so the channel carries nothing else.
//
// A thread of the agent's, not a process: processes end with the command, and files must be there until all has been
// written.
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"
#include "guest/agent/volumes.h"

namespace bulkhead::agent {
namespace {

constexpr size_t kMessage = 1024 * 1024 + 4096;  // the server's largest data and its header

struct Way {
  std::byte bytes[kMessage];
  size_t used = 0, done = 0;
};
Port* g_port = nullptr;
int g_fuse = -1;
Way g_requests, g_replies;

// The next request of the kernel's, if there is one. False: the file system has been unmounted.
bool take_request() {
  const ssize_t size = read(g_fuse, g_requests.bytes, sizeof g_requests.bytes);
  if (size > 0) {
    g_requests.used = static_cast<size_t>(size);
    g_requests.done = 0;
  }
  return size > 0 || errno == EAGAIN || errno == EINTR || errno == ENOENT;  // interrupted before it was read
}

void send_request() {
  const ssize_t sent = g_port->write(g_requests.bytes + g_requests.done, g_requests.used - g_requests.done);
  if (sent > 0) g_requests.done += static_cast<size_t>(sent);
  if (g_requests.done == g_requests.used) g_requests.done = g_requests.used = 0;
}

// A reply that the kernel does not want (its request was given up) is dropped, as it says it should be.
bool take_replies() {
  for (;;) {
    std::uint32_t wanted = sizeof(fuse_out_header);
    if (g_replies.used >= wanted) memcpy(&wanted, g_replies.bytes, sizeof wanted);
    if (wanted < sizeof(fuse_out_header) || wanted > kMessage) return false;
    if (g_replies.used == wanted && wanted > 0) {
      (void)!write(g_fuse, g_replies.bytes, wanted);
      g_replies.used = 0;
      continue;
    }
    const ssize_t got = g_port->read(g_replies.bytes + g_replies.used, wanted - g_replies.used);
    if (got <= 0) return true;
    g_replies.used += static_cast<size_t>(got);
  }
}

void* pass_on(void*) {
  for (;;) {
    const bool sending = g_requests.used > 0;
    pollfd entries[2] = {{-1, 0, 0}, {sending ? -1 : g_fuse, POLLIN, 0}};
    const bool no_wait = g_port->prepare(static_cast<short>(POLLIN | (sending ? POLLOUT : 0)), entries[0]);
    poll(entries, 2, no_wait ? 0 : -1);
    const short ready = g_port->ready(entries[0]);
    if ((ready & POLLIN) != 0 && !take_replies()) break;  // not our monitor's language
    if (g_requests.used == 0 && !take_request()) break;
    if (g_requests.used > 0) send_request();
  }
  close(g_fuse);  // whoever uses the files hears ENOTCONN
  return nullptr;
}

bool start_thread() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool good = pthread_create(&thread, nullptr, pass_on, nullptr) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return good;
}

}  // namespace

bool mount_channel_files(const char* place, Failure& failure) {
  g_port = open_xen_port(kXenFilesDirectory);
  if (g_port == nullptr) return failed_plainly(failure, "no channel for the host's files appeared");
  g_fuse = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (g_fuse < 0) return failed(failure, "opening /dev/fuse");
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
           g_fuse);
  if (mount(kFilesTag, place, "fuse", MS_NODEV | MS_NOSUID, options) != 0)
    return failed(failure, "mounting the host's files by FUSE");
  if (!start_thread()) return failed_plainly(failure, "starting a thread for the host's files");
  return true;
}

}  // namespace bulkhead::agent
