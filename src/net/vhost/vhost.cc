#include "net/vhost/vhost.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#define VIRTIO_RING_NO_LEGACY  // inline functions that are no C++
#include <linux/vhost.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/thread.h"

namespace bulkhead::net {
namespace {

constexpr int kHeaderBytes = 12;  // of virtio since version 1
constexpr int kLookEveryMs = 1000;

}  // namespace

Result<std::unique_ptr<Vhost>> Vhost::open(unsigned pairs) {
  std::unique_ptr<Vhost> vhost{new Vhost};
  for (unsigned i = 0; i < pairs; ++i) {
    vhost->devices_.emplace_back(::open("/dev/vhost-net", O_RDWR | O_CLOEXEC));
    if (!vhost->devices_.back())
      return fail_errno("opening /dev/vhost-net (`modprobe vhost_net` may be missing, or permission)");
  }
  u64 known = 0;
  if (::ioctl(vhost->devices_[0].get(), VHOST_GET_FEATURES, &known) != 0)
    return fail_errno("asking /dev/vhost-net what it can do");
  // Not its own: the header in front of frames is the tap device's matter; nobody reads a log of writes.
  vhost->features_ = known & ~(u64{1} << VHOST_NET_F_VIRTIO_NET_HDR | u64{1} << VHOST_F_LOG_ALL);
  vhost->rings_.resize(pairs * kRings);
  return vhost;
}

Vhost::~Vhost() {
  stop();
  unwatch();
}

void Vhost::unwatch() {
  if (!watcher_.joinable()) return;
  const u64 one = 1;
  (void)!::write(end_.get(), &one, sizeof one);
  watcher_.join();
}

Result<void> Vhost::begin(u64 features, const GuestMemory& memory, std::span<const int> taps) {
  std::vector<std::byte> table(sizeof(vhost_memory) + memory.ranges().size() * sizeof(vhost_memory_region));
  auto* const list = reinterpret_cast<vhost_memory*>(table.data());
  for (const RamRange& range : memory.ranges())
    list->regions[list->nregions++] = {range.start.value, range.size,
                                       reinterpret_cast<u64>(memory.host(range.start, range.size)), 0};
  taps_.assign(taps.begin(), taps.end());
  for (const int tap : taps_)
    if (::ioctl(tap, TUNSETVNETHDRSZ, &kHeaderBytes) != 0) return fail_errno("setting the header size of a tap device");
  const u64 agreed = features & features_;
  for (const UniqueFd& device : devices_) {
    if (!owned_ && ::ioctl(device.get(), VHOST_SET_OWNER) != 0) return fail_errno("starting the kernel's vhost-net");
    if (::ioctl(device.get(), VHOST_SET_FEATURES, &agreed) != 0 ||
        ::ioctl(device.get(), VHOST_SET_MEM_TABLE, list) != 0)
      return fail_errno("telling vhost-net of the guest's memory");
  }
  owned_ = true;
  return {};
}

Result<void> Vhost::start_ring(unsigned index, const Ring& ring, const GuestMemory& memory) {
  const unsigned which = index % kRings;
  const auto tell = [&](unsigned long what, const void* argument) {
    return ::ioctl(device(index), what, argument) == 0;
  };
  // With the words behind either that say when to notify [virtio-1.3 §2.7.2].
  std::byte* const descriptors = memory.host(ring.descriptors, 16 * u64{ring.size});
  std::byte* const driver = memory.host(ring.driver, 6 + 2 * u64{ring.size});
  std::byte* const used = memory.host(ring.device, 6 + 8 * u64{ring.size});
  if (descriptors == nullptr || driver == nullptr || used == nullptr)
    return fail("a ring is not in the guest's memory");
  const vhost_vring_state size{which, ring.size}, base{which, rings_[index].base};
  const vhost_vring_addr addresses{
      which, 0, reinterpret_cast<u64>(descriptors), reinterpret_cast<u64>(used), reinterpret_cast<u64>(driver), 0};
  const vhost_vring_file kick{which, ring.notifications}, call{which, ring.interrupts},
      backend{which, taps_[index / kRings]};
  if (!tell(VHOST_SET_VRING_NUM, &size) || !tell(VHOST_SET_VRING_BASE, &base) ||
      !tell(VHOST_SET_VRING_ADDR, &addresses) || !tell(VHOST_SET_VRING_KICK, &kick) ||
      !tell(VHOST_SET_VRING_CALL, &call) || !tell(VHOST_NET_SET_BACKEND, &backend))
    return fail_errno("handing a ring to vhost-net");
  rings_[index].runs = true;
  return {};
}

void Vhost::stop_ring(unsigned index) {
  if (!runs(index)) return;
  const unsigned which = index % kRings;
  const vhost_vring_file none{which, -1};
  (void)::ioctl(device(index), VHOST_NET_SET_BACKEND, &none);
  vhost_vring_state base{which, 0};
  (void)::ioctl(device(index), VHOST_GET_VRING_BASE, &base);
  rings_[index] = {false, static_cast<u16>(base.num)};
}

void Vhost::stop() {
  for (unsigned i = 0; i < rings_.size(); ++i) stop_ring(i);
  for (State& ring : rings_) ring = {};
}

void Vhost::watch(int tap, std::function<void()> gone) {
  if (watcher_.joinable()) return;
  end_ = UniqueFd{::eventfd(0, EFD_CLOEXEC)};
  watcher_ = start_thread("bh-vhost-watch", [this, tap, gone = std::move(gone)] {
    // A tap that goes does not say so to who wants no frames: it must be asked.
    for (pollfd end{end_.get(), POLLIN, 0}; ::poll(&end, 1, kLookEveryMs) == 0;) {
      pollfd device{tap, 0, 0};
      if (::poll(&device, 1, 0) <= 0 || (device.revents & POLLERR) == 0) continue;
      return gone();
    }
  });
}

}  // namespace bulkhead::net
