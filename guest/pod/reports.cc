#include <string.h>
#include <sys/socket.h>

#include "guest/pod/pod.h"

namespace bulkhead::pod {
namespace {

// A message of one report, with room for one descriptor.
struct Envelope {
  explicit Envelope(ChildReport& report) : part{&report, sizeof report} {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
  }
  iovec part;
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
};

}  // namespace

bool send_report(int socket, const ChildReport& report, int fd) {
  ChildReport copy = report;
  Envelope envelope{copy};
  if (fd < 0) {
    envelope.message.msg_control = nullptr;
    envelope.message.msg_controllen = 0;
  } else {
    cmsghdr* const header = CMSG_FIRSTHDR(&envelope.message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  return sendmsg(socket, &envelope.message, MSG_NOSIGNAL) >= 0;
}

ssize_t receive_report(int socket, ChildReport& report, int& fd) {
  Envelope envelope{report};
  fd = -1;
  const ssize_t size = recvmsg(socket, &envelope.message, MSG_CMSG_CLOEXEC);
  if (const cmsghdr* const header = CMSG_FIRSTHDR(&envelope.message); size > 0 && header != nullptr)
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return size;
}

}  // namespace bulkhead::pod
