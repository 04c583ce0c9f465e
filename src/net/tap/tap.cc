#include "net/tap/tap.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/tap/device.h"

namespace bulkhead::net {
namespace {

// Of Linux 6.2; headers of older systems do not have them.
constexpr unsigned kTunUso4 = 0x20, kTunUso6 = 0x40;
constexpr std::size_t kMostPieces = 256;

unsigned tun_offloads(Offloads offloads) {
  if (!(offloads & kChecksum)) return 0;
  unsigned all = TUN_F_CSUM;
  if (offloads & kTso4) all |= TUN_F_TSO4;
  if (offloads & kTso6) all |= TUN_F_TSO6;
  if ((offloads & kTsoEcn) && (offloads & (kTso4 | kTso6))) all |= TUN_F_TSO_ECN;
  if (offloads & kUso) all |= kTunUso4 | kTunUso6;
  return all;
}

Result<UniqueFd> open_queue(std::string& name, short flags) {
  UniqueFd fd{::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  if (!fd) return fail_errno("opening /dev/net/tun (this needs a host with tap devices, and permission)");
  ifreq request{};
  request.ifr_flags = flags;
  std::memcpy(request.ifr_name, name.data(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1));
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0)
    return fail_errno("opening the tap device {} (an existing one must be yours; making one needs CAP_NET_ADMIN)",
                      name);
  name = request.ifr_name;
  return fd;
}

}  // namespace

Sent TapQueue::send(const FrameHeader& header, std::span<const IoBuffer> frame) {
  if (frame.size() > kMostPieces) return Sent::kRefused;
  iovec pieces[kMostPieces + 1];
  pieces[0] = {const_cast<FrameHeader*>(&header), sizeof header};
  for (std::size_t i = 0; i < frame.size(); ++i) pieces[i + 1] = {frame[i].data, frame[i].length};
  if (::writev(fd_.get(), pieces, static_cast<int>(frame.size()) + 1) >= 0) return Sent::kDone;
  if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) return Sent::kFull;
  return errno == EBADFD ? Sent::kGone : Sent::kRefused;  // EIO: the device is down; EINVAL: not what the host likes
}

Received TapQueue::receive(FrameHeader& header, std::span<std::byte>& frame) {
  const iovec pieces[2] = {{&header, sizeof header}, {buffer_.data(), buffer_.size()}};
  const ssize_t got = ::readv(fd_.get(), pieces, 2);
  // EFAULT: what a reader of a device that has just been removed gets.
  if (got < 0) return errno == EBADFD || errno == EFAULT ? Received::kGone : Received::kNothing;
  const auto size = static_cast<std::size_t>(got);
  if (size < sizeof header || size - sizeof header > kMaxFrame) return Received::kNothing;
  frame = std::span{buffer_}.first(size - sizeof header);
  return Received::kFrame;
}

Result<std::unique_ptr<Tap>> Tap::open(const std::string& name, unsigned queues) {
  std::unique_ptr<Tap> tap{new Tap};
  tap->name_ = name;
  tap->made_ = !device_exists(name);
  short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  auto first = open_queue(tap->name_, flags);
  if (!first && !tap->made_) {  // somebody made it with one queue
    flags = static_cast<short>(flags & ~IFF_MULTI_QUEUE);
    first = open_queue(tap->name_, flags);
  }
  if (!first) return std::unexpected(std::move(first.error()));
  const int fd = first->get();
  tap->queues_.push_back(std::make_unique<TapQueue>(std::move(*first)));
  while (tap->queues_.size() < queues && (flags & IFF_MULTI_QUEUE) != 0) {
    BH_ASSIGN(UniqueFd more, open_queue(tap->name_, flags));
    tap->queues_.push_back(std::make_unique<TapQueue>(std::move(more)));
  }
  tap->active_ = tap->queue_count();
  const int header = sizeof(FrameHeader);
  if (::ioctl(fd, TUNSETVNETHDRSZ, &header) != 0)
    return fail_errno("setting the header size of the tap {}", tap->name_);
  tap->takes_ = kChecksum | kTso4 | kTso6 | kTsoEcn;
  if (::ioctl(fd, TUNSETOFFLOAD, tun_offloads(kAllOffloads)) == 0) tap->takes_ = kAllOffloads;
  tap->set_accepted(0);
  return tap;
}

void Tap::set_accepted(Offloads offloads) {
  ::ioctl(queues_[0]->descriptor(), TUNSETOFFLOAD, tun_offloads(offloads & takes_));
}

void Tap::set_active(unsigned count) {
  for (unsigned i = 0; i < queue_count() && queue_count() > 1; ++i) {
    if ((i < count) == (i < active_)) continue;
    ifreq request{};
    request.ifr_flags = i < count ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
    ::ioctl(queues_[i]->descriptor(), TUNSETQUEUE, &request);
  }
  active_ = count;
}

}  // namespace bulkhead::net
