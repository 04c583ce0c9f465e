// The way to the monitor where all devices are Xen's: pages from gntalloc, an event channel from evtchn, and where they
// are in xenstore. The monitor connects when it sees the last node.
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>
#include <xen/io/xs_wire.h>

using domid_t = uint16_t;  // which evtchn.h takes for granted
#include <xen/sys/evtchn.h>
#include <xen/sys/gntalloc.h>

#include <cerrno>
#include <new>

#include "guest/agent/agent.h"
#include "guest/agent/vchan_server.h"

namespace bulkhead::agent {
namespace {

constexpr std::uint16_t kMonitor = 0;  // its domain
constexpr unsigned kXenPorts = 2;      // the agent's own, and the files'

bool read_whole(int fd, void* out, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = read(fd, static_cast<char*>(out) + done, size - done);
    if (got <= 0 && errno != EINTR) return false;
    done += got > 0 ? static_cast<size_t>(got) : 0;
  }
  return true;
}

// One request to xenstore and its answer, which is only good or bad.
bool ask_store(int store, const char* directory, std::uint32_t type, const char* node, const char* value) {
  char path[128];
  const int path_size = snprintf(path, sizeof path, "%s%s", directory, node) + 1;  // with its NUL
  const size_t value_size = value == nullptr ? 0 : strlen(value);
  char request[sizeof(xsd_sockmsg) + sizeof path + 32];
  const xsd_sockmsg header{type, 1, 0, static_cast<std::uint32_t>(path_size + value_size)};
  memcpy(request, &header, sizeof header);
  memcpy(request + sizeof header, path, static_cast<size_t>(path_size));
  if (value_size > 0) memcpy(request + sizeof header + path_size, value, value_size);
  const auto size = static_cast<ssize_t>(sizeof header + header.len);
  if (write(store, request, static_cast<size_t>(size)) != size) return false;
  xsd_sockmsg answer;
  char rest[XENSTORE_PAYLOAD_MAX];
  if (!read_whole(store, &answer, sizeof answer) || answer.len > sizeof rest) return false;
  return read_whole(store, rest, answer.len) && answer.type == type;
}

bool write_number(int store, const char* directory, const char* node, std::uint32_t number) {
  char text[16];
  snprintf(text, sizeof text, "%u", number);
  return ask_store(store, directory, XS_WRITE, node, text);
}

// Shared pages that live as long as we do.
std::byte* allocate_pages(std::uint32_t (&references)[VchanServer::kPages]) {
  const int device = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);
  if (device < 0) return nullptr;
  alignas(ioctl_gntalloc_alloc_gref) char storage[sizeof(ioctl_gntalloc_alloc_gref) + sizeof references] = {};
  auto* const request = new (storage) ioctl_gntalloc_alloc_gref{};
  request->domid = kMonitor;
  request->flags = GNTALLOC_FLAG_WRITABLE;
  request->count = VchanServer::kPages;
  void* pages = MAP_FAILED;
  if (ioctl(device, IOCTL_GNTALLOC_ALLOC_GREF, request) == 0) {
    memcpy(references, storage + offsetof(ioctl_gntalloc_alloc_gref, gref_ids), sizeof references);
    pages = mmap(nullptr, sizeof(std::byte) * VchanServer::kPages * VchanServer::kPage, PROT_READ | PROT_WRITE,
                 MAP_SHARED, device, static_cast<off_t>(request->index));
  }
  if (pages == MAP_FAILED) {
    close(device);
    return nullptr;
  }
  return static_cast<std::byte*>(pages);  // the device stays open: closing it ends the grants
}

class XenPort final : public Port {
 public:
  XenPort(int events, std::uint32_t port, std::byte* pages, const std::uint32_t* references)
      : events_{events}, port_{port}, server_{pages, references} {}

  bool prepare(short wanted, pollfd& entry) override {
    wanted_ = wanted;
    entry = {events_, POLLIN, 0};
    if (possible() != 0) return true;
    // Ask first, look after: what comes between is an event.
    if ((wanted & POLLIN) != 0) server_.want_bytes();
    if ((wanted & POLLOUT) != 0) server_.want_room();
    return possible() != 0;
  }

  short ready(const pollfd& entry) override {
    if ((entry.revents & POLLIN) != 0) {
      // Each event that is read has to be given back, or it stays masked.
      std::uint32_t happened[16];
      const ssize_t size = ::read(events_, happened, sizeof happened);
      if (size > 0) (void)!::write(events_, happened, static_cast<size_t>(size));
    }
    return possible();
  }

  ssize_t read(void* data, size_t size) override {
    bool tell = false;
    const std::uint32_t got = server_.read(data, static_cast<std::uint32_t>(size), tell);
    return answer(got, tell);
  }
  ssize_t write(const void* data, size_t size) override {
    bool tell = false;
    const std::uint32_t put = server_.write(data, static_cast<std::uint32_t>(size), tell);
    return answer(put, tell);
  }

 private:
  short possible() {
    const short in = server_.used() > 0 ? POLLIN : 0, out = server_.room() > 0 ? POLLOUT : 0;
    if (server_.broken()) power_off();  // not our monitor's language
    return static_cast<short>((in | out) & wanted_);
  }
  ssize_t answer(std::uint32_t size, bool tell) {
    if (tell) {
      ioctl_evtchn_notify request{port_};
      ioctl(events_, IOCTL_EVTCHN_NOTIFY, &request);
    }
    if (size > 0) return size;
    errno = EAGAIN;
    return -1;
  }

  const int events_;
  const std::uint32_t port_;
  short wanted_ = 0;
  VchanServer server_;
};

// Shows the monitor what there is; the event channel last, for that is what it connects by. One left by an earlier
// kernel goes first, lest it be taken for ours.
bool publish(int store, const char* directory, std::uint32_t reference, std::uint32_t port) {
  ask_store(store, directory, XS_RM, "/event-channel", nullptr);
  return write_number(store, directory, "/ring-ref", reference) &&
         write_number(store, directory, "/event-channel", port);
}

Port* offer(int store, const char* directory) {
  static unsigned offered = 0;
  if (offered == kXenPorts) return nullptr;
  static std::uint32_t all_references[kXenPorts][VchanServer::kPages];
  alignas(XenPort) static std::byte all_storage[kXenPorts][sizeof(XenPort)];
  auto& references = all_references[offered];
  auto& storage = all_storage[offered];
  const int events = open("/dev/xen/evtchn", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (events < 0) return nullptr;
  ioctl_evtchn_bind_unbound_port unbound{kMonitor};
  const int port = ioctl(events, IOCTL_EVTCHN_BIND_UNBOUND_PORT, &unbound);
  std::byte* const pages = port > 0 ? allocate_pages(references) : nullptr;
  if (pages != nullptr) {
    auto* const made = new (storage) XenPort{events, static_cast<std::uint32_t>(port), pages, references};
    if (publish(store, directory, references[0], static_cast<std::uint32_t>(port))) {
      ++offered;
      return made;
    }
    munmap(pages, VchanServer::kPages * VchanServer::kPage);
  }
  close(events);
  return nullptr;
}

}  // namespace

Port* open_xen_port(const char* directory) {
  // In the order of what is missing most often. The file of xenstore is there on every Xen guest, our directory only
  // where the monitor listens.
  const int store = open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC);
  if (store < 0) return nullptr;
  Port* const port = ask_store(store, directory, XS_READ, "", nullptr) ? offer(store, directory) : nullptr;
  close(store);
  return port;
}

}  // namespace bulkhead::agent
